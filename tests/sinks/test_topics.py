"""Output topics: created once, with what the sinks rely on, and clear words when that is impossible."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from sinks.topics import HEADER_ROOM_BYTES, OutputTopic, TopicError, ensure_topics
from sources.errors import ClusterUnavailableError
from tests.kafka_log import NewRecord, produce, read_topic, topic_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import KafkaCluster, Topics


def config_of(options: dict[str, str], topic: str) -> dict[str, Any]:
    """Read the settings of a topic."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient(options)
    answer = admin.describe_configs([resource])[resource].result(15)
    return {name: entry.value for name, entry in answer.items()}


def test_missing_topics_are_created_as_the_contract_says(kafka: KafkaCluster, topics: Topics) -> None:
    wanted = [
        OutputTopic(topics.windows),
        OutputTopic(topics.alerts_state, compacted=True),
        OutputTopic(topics.dead_letter, holds=topics.events),
    ]
    counts = ensure_topics(kafka.client_options, wanted, partitions=3)
    assert counts == {topics.windows: 3, topics.alerts_state: 3, topics.dead_letter: 3}
    assert config_of(kafka.client_options, topics.windows)["cleanup.policy"] == "delete"
    state = config_of(kafka.client_options, topics.alerts_state)
    assert state["cleanup.policy"] == "compact"
    assert int(state["min.compaction.lag.ms"]) > 0, "or a resumed sink would not find its own records"


def test_the_largest_event_fits_into_the_dead_letter_topic_with_its_headers(
    kafka: KafkaCluster, make_topic: Callable[..., str]
) -> None:
    events = make_topic("events", partitions=1, max_message_bytes="3000000")
    dead = f"{events}.dead"
    ensure_topics(kafka.client_options, [OutputTopic(dead, holds=events)])
    value = bytes(3_000_000)
    headers = (("dlq.error.message", bytes(HEADER_ROOM_BYTES - 1000)),)
    client = {**kafka.client_options, "compression.type": "none"}
    produce(client, dead, [NewRecord(value, headers=headers)])
    [record] = read_topic(kafka.client_options, dead)
    assert (record.value, record.headers) == (value, headers)


def test_a_dead_letter_topic_that_is_too_small_for_the_largest_events_is_told_of_and_used(
    kafka: KafkaCluster, make_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    events, dead = make_topic("events", max_message_bytes="500000"), make_topic("dead", max_message_bytes="500000")
    assert ensure_topics(kafka.client_options, [OutputTopic(dead, holds=events)]) == {dead: 4}
    [told] = caplog.messages
    assert f"topic `{dead}` has a max.message.bytes below 565536" in told
    assert config_of(kafka.client_options, dead)["max.message.bytes"] == "500000"


def test_existing_topics_are_left_alone_and_counted(kafka: KafkaCluster, make_topic: Callable[..., str]) -> None:
    existing = make_topic("windows", partitions=7, cleanup_policy="compact")
    assert ensure_topics(kafka.client_options, [OutputTopic(existing)], partitions=2) == {existing: 7}
    assert config_of(kafka.client_options, existing)["cleanup.policy"] == "compact"


def test_several_processes_may_create_the_same_topics_at_once(kafka: KafkaCluster, topics: Topics) -> None:
    wanted = [OutputTopic(topics.windows), OutputTopic(topics.alerts)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: ensure_topics(kafka.client_options, wanted), range(4)))
    assert results == [{topics.windows: 4, topics.alerts: 4}] * 4
    assert {topics.windows, topics.alerts} <= topic_names(kafka.client_options)


def test_an_absent_broker_is_one_line_that_names_it(free_port: int) -> None:
    client = {"bootstrap.servers": f"127.0.0.1:{free_port}"}
    with pytest.raises(ClusterUnavailableError) as caught:
        ensure_topics(client, [OutputTopic("windows")], timeout_s=1)
    text = str(caught.value)
    assert text.startswith(f"kafka at 127.0.0.1:{free_port} did not answer within 1 s: ")
    assert "Connection refused" in text
    assert "\n" not in text


def test_an_absent_broker_is_noticed_in_the_time_given(free_port: int) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterUnavailableError):
        ensure_topics({"bootstrap.servers": f"127.0.0.1:{free_port}"}, [OutputTopic("w")], timeout_s=0.5)
    quick = time.monotonic() - began
    began = time.monotonic()
    with pytest.raises(ClusterUnavailableError):
        ensure_topics({"bootstrap.servers": f"127.0.0.1:{free_port}"}, [OutputTopic("w")], timeout_s=3)
    assert time.monotonic() - began > quick


def test_a_name_that_kafka_refuses_is_named(kafka: KafkaCluster) -> None:
    with pytest.raises(TopicError, match=r"topic `a/b` can't be created: .*invalid"):
        ensure_topics(kafka.client_options, [OutputTopic("a/b")])

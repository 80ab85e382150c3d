"""The fixtures that every other Kafka test stands on."""

from collections.abc import Callable

import pytest

from tests.conftest import KafkaCluster, Topics
from tests.kafka_log import NewRecord, end_offsets, produce, read_topic, topic_names, wait_for_records


def test_records_come_back_with_key_partition_headers_and_timestamp(
    kafka: KafkaCluster, make_topic: Callable[..., str]
) -> None:
    """What `produce` writes is what `read_topic` reads."""
    topic = make_topic(partitions=2)
    written = NewRecord(b"value", b"key", 1, (("first", b"1"), ("second", b"")), 1_700_000_000_000)
    produce(kafka.client_options, topic, [written, NewRecord(None, b"tombstone", 0)])
    tombstone, record = read_topic(kafka.client_options, topic)
    assert (tombstone.partition, tombstone.key, tombstone.value) == (0, b"tombstone", None)
    assert (record.partition, record.offset, record.key, record.value) == (1, 0, b"key", b"value")
    assert record.headers == written.headers
    assert record.timestamp_ms == written.timestamp_ms


def test_a_test_has_its_own_empty_events_topic_and_no_outputs(
    kafka: KafkaCluster, topics: Topics, cluster: dict[str, str]
) -> None:
    """Flows create the output topics; the fixture must not do it for them."""
    existing = topic_names(kafka.client_options)
    assert topics.events in existing
    assert existing.isdisjoint({topics.windows, topics.alerts, topics.alerts_state, topics.dead_letter, topics.truth})
    assert end_offsets(kafka.client_options, topics.events) == {0: 0, 1: 0, 2: 0, 3: 0}
    assert cluster["TAILMARK_KAFKA__TOPICS__EVENTS"] == topics.events


@pytest.mark.parametrize("number", range(3))
def test_waiting_for_records_returns_them_all(kafka: KafkaCluster, make_topic: Callable[..., str], number: int) -> None:
    """Several of these run at once under pytest-xdist, on one broker."""
    topic = make_topic()
    produce(kafka.client_options, topic, [b"%d" % index for index in range(1000 + number)])
    assert len(wait_for_records(kafka.client_options, topic, 1000 + number)) == 1000 + number

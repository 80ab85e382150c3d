"""Where a source goes on: exactly behind what its snapshot counted, or not at all, with one line that says why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # the package does not list it

from operators.kernels.codec import StateError
from operators.kernels.watermarks import ENDED
from sources import kafka as kafka_source
from sources import topic_watch
from sources.errors import SourceError
from sources.groups import committed_offsets
from tests.dirty_log import START_MS
from tests.kafka_log import create_topic, end_offsets, produce
from tests.sources.reading import Opened, read_all, read_until, records, source_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import KafkaCluster


def mirrored(options: dict[str, str], topic: str) -> dict[int, int]:
    """Read the offsets that lag tools see."""
    group = f"{topic}-group"
    wanted = [TopicPartition(topic, partition) for partition in end_offsets(options, topic)]
    return {partition: offset for (_, partition), offset in committed_offsets(options, group, wanted).items()}


def delete_topic(options: dict[str, str], topic: str) -> None:
    """Delete a topic and wait until its name is free."""
    admin = AdminClient(dict(options))
    admin.delete_topics([topic], operation_timeout=15)[topic].result(15)
    deadline = time.monotonic() + 60
    while topic in admin.list_topics(timeout=15).topics and time.monotonic() < deadline:
        time.sleep(0.1)


def test_source_goes_on_behind_its_snapshot(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "FRAME_ROWS", 30)
    monkeypatch.setattr(kafka_source, "READ_ROWS", 30)
    topic = make_topic(partitions=2)
    produce(kafka.client_options, topic, [*records(0, 100), *records(1, 100)])
    source = source_on(kafka.client_options, topic)
    part = opened(source)
    before = read_until(part, lambda r: r.events()["a"] > 0)
    state = part.snapshot()
    read_until(part, lambda r: r.events()["a"] > 0)  # not in the snapshot: read again
    after = read_all(opened(source, state))
    assert sorted(before.endpoints() + after.endpoints()) == sorted(2 * [f"/{number}" for number in range(100)])


def test_event_time_of_a_partition_goes_on_with_it(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    """Whether an event is late does not depend on where the job was stopped."""
    topic = make_topic(partitions=1)
    source = source_on(kafka.client_options, topic)
    produce(kafka.client_options, topic, records(0, 1, start_ms=START_MS + 100_000))
    part = opened(source)
    read_all(part)
    produce(kafka.client_options, topic, records(0, 3))
    resumed = opened(source, part.snapshot())
    assert read_all(resumed).events() == {}
    assert source.vitals.events["late"] == 3


def test_end_of_an_earlier_job_is_forgotten(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=2)
    source = source_on(kafka.client_options, topic)
    part = opened(source)
    read_all(part)
    first = opened(source_on(kafka.client_options, topic, stop_at_end=False), part.snapshot()).next_batch()[0]
    assert first.news is not None
    assert [mark.mode == ENDED for mark in first.news.marks] == [False, False]


def test_new_partitions_are_read_from_their_beginning_at_the_next_start(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=2)
    source = source_on(kafka.client_options, topic)
    produce(kafka.client_options, topic, records(0, 10))
    part = opened(source)
    assert read_all(part).events() == {"a": 10}
    admin = AdminClient(dict(kafka.client_options))
    admin.create_partitions([NewPartitions(topic, 5)], operation_timeout=15)[topic].result(15)
    deadline = time.monotonic() + 60
    while len(end_offsets(kafka.client_options, topic)) < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    produce(kafka.client_options, topic, [*records(1, 3, service="old"), *records(4, 7, service="new")])
    resumed = read_all(opened(source, part.snapshot()))
    assert resumed.events() == {"old": 3, "new": 7}
    assert {mark.partition for mark in resumed.marks()} == set(range(5))


def test_retention_that_passed_the_snapshot_is_refused_with_what_is_lost(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, delete_before: Callable[..., None]
) -> None:
    topic = make_topic(partitions=2)
    source = source_on(kafka.client_options, topic)
    produce(kafka.client_options, topic, records(1, 10))
    part = opened(source)
    read_all(part)
    produce(kafka.client_options, topic, records(1, 30))
    delete_before(topic, {1: 25})
    expected = rf"`{topic}` partition 1 resumes at offset 10, but its log begins at 25, so 15 records"
    with pytest.raises(SourceError, match=expected) as refusal:
        opened(source, part.snapshot())
    assert "empty recovery directory" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_retention_up_to_the_snapshot_loses_nothing(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, delete_before: Callable[..., None]
) -> None:
    topic = make_topic(partitions=1)
    source = source_on(kafka.client_options, topic)
    produce(kafka.client_options, topic, records(0, 10))
    part = opened(source)
    read_all(part)
    produce(kafka.client_options, topic, records(0, 5))
    delete_before(topic, {0: 10})
    assert read_all(opened(source, part.snapshot())).events() == {"a": 5}


def test_retention_in_a_partition_that_was_empty_at_the_snapshot_is_noticed_too(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, delete_before: Callable[..., None]
) -> None:
    topic = make_topic(partitions=1)
    source = source_on(kafka.client_options, topic)
    part = opened(source)
    read_all(part)
    produce(kafka.client_options, topic, records(0, 10))
    delete_before(topic, {0: 4})
    with pytest.raises(SourceError, match=r"resumes at offset 0, but its log begins at 4, so 4 records"):
        opened(source, part.snapshot())


def test_first_start_reads_what_retention_has_left(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, delete_before: Callable[..., None]
) -> None:
    topic = make_topic(partitions=1)
    produce(kafka.client_options, topic, records(0, 10))
    delete_before(topic, {0: 4})
    reading = read_all(opened(source_on(kafka.client_options, topic)))
    assert reading.endpoints() == [f"/{number}" for number in range(4, 10)]


def test_records_deleted_under_a_running_source_stop_it(
    kafka: KafkaCluster,
    make_topic: Callable[..., str],
    opened: Opened,
    delete_before: Callable[..., None],
) -> None:
    topic = make_topic(partitions=1)
    source = source_on({**kafka.client_options, "max.partition.fetch.bytes": "100"}, topic, stop_at_end=False)
    part = opened(source)
    produce(kafka.client_options, topic, records(0, 5))
    reading = read_until(part, lambda r: r.events()["a"] == 5 and bool(part._at_end))
    # The position is put back by hand: a broker deletes too slowly for a test to be behind it.
    part._consumer.assign([TopicPartition(topic, 0, 2)])
    delete_before(topic, {0: 5})
    with pytest.raises(SourceError, match=r"can't be read any further: .*nothing was skipped"):
        read_until(part, lambda r: r.events()["a"] > 8, reading=reading)


@pytest.mark.parametrize("records_before", [3, 20, 40])
def test_topic_that_was_made_anew_is_refused_whatever_its_size(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, records_before: int
) -> None:
    """Offsets of one topic mean nothing in another, even when they exist there."""
    topic = make_topic(partitions=1)
    source = source_on(kafka.client_options, topic)
    produce(kafka.client_options, topic, records(0, 20))
    part = opened(source)
    read_all(part)
    state = part.snapshot()
    delete_topic(kafka.client_options, topic)
    create_topic(kafka.client_options, topic, partitions=1)
    produce(kafka.client_options, topic, records(0, records_before))
    with pytest.raises(SourceError, match=rf"`{topic}`.* anew; start with an empty recovery directory"):
        opened(source, state)


def test_topic_that_does_not_exist_is_named(kafka: KafkaCluster, opened: Opened) -> None:
    with pytest.raises(SourceError, match=r"topic `no-such-topic` does not exist.*create it"):
        opened(source_on(kafka.client_options, "no-such-topic"))


@pytest.mark.parametrize("made_again", [False, True])
def test_topic_deleted_under_a_running_source_stops_it(
    kafka: KafkaCluster,
    make_topic: Callable[..., str],
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
    *,
    made_again: bool,
) -> None:
    """The client itself waits for ever, or goes on in the middle of the new topic."""
    monkeypatch.setattr(topic_watch, "WATCH_EVERY_S", 0.1)
    topic = make_topic(partitions=1)
    produce(kafka.client_options, topic, records(0, 3))
    part = opened(source_on(kafka.client_options, topic, stop_at_end=False))
    reading = read_until(part, lambda r: r.events()["a"] == 3)
    delete_topic(kafka.client_options, topic)
    if made_again:
        create_topic(kafka.client_options, topic, partitions=1)
        produce(kafka.client_options, topic, records(0, 10, service="new"))
    with pytest.raises(SourceError, match="made anew|any further" if made_again else f"topic `{topic}` was deleted"):
        read_until(part, lambda _: False, reading=reading)
    assert reading.events() == {"a": 3}


@pytest.mark.parametrize("state", [b"", b"TM", b"rubbish"])
def test_snapshot_that_can_not_be_read_is_refused(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, state: bytes
) -> None:
    with pytest.raises(StateError, match="`source`"):
        opened(source_on(kafka.client_options, make_topic(partitions=1)), state)


# The consumer group shows lag tools how far snapshots are, and nothing else.


def test_group_follows_the_snapshots_and_not_what_was_read_since(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=2)
    produce(kafka.client_options, topic, records(0, 10))
    part = opened(source_on(kafka.client_options, topic, stop_at_end=False))
    read_until(part, lambda r: r.events()["a"] == 10)
    part.snapshot()
    produce(kafka.client_options, topic, records(0, 10))
    read_until(part, lambda r: r.events()["a"] == 10)
    deadline = time.monotonic() + 60
    while (found := mirrored(kafka.client_options, topic)) != {0: 10, 1: 0} and time.monotonic() < deadline:
        part.next_batch()
        time.sleep(0.05)
    assert found == {0: 10, 1: 0}
    part.snapshot()
    part.close()
    assert mirrored(kafka.client_options, topic) == {0: 20, 1: 0}


def test_group_is_never_read_back(kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened) -> None:
    topic = make_topic(partitions=1)
    produce(kafka.client_options, topic, records(0, 10))
    source = source_on(kafka.client_options, topic)
    part = opened(source)
    read_all(part)
    part.snapshot()
    part.close()
    assert mirrored(kafka.client_options, topic) == {0: 10}
    assert read_all(opened(source)).events() == {"a": 10}

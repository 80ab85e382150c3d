"""The Kafka source on a real broker: what it reads, what it tells the shards, and where it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from operators import vitals as flow_vitals
from operators.kernels.watermarks import ACTIVE, ENDED, IDLE
from sinks.vitals_page import largest_lag_s
from sources import kafka as kafka_source
from sources import topic_watch
from tests.dirty_log import START_MS, event
from tests.kafka_log import NewRecord, create_topic, end_offsets, produce
from tests.sources.reading import KAFKA_MS, Opened, Reading, read_all, read_until, records, source_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.kafka import EmbeddedKafka
    from tests.conftest import KafkaCluster


# What the shards are told.


def test_all_partitions_are_announced_before_anything_is_read(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    """A shard that knew only some of them would close windows that the others have yet to fill."""
    topic = make_topic(partitions=3)
    produce(kafka.client_options, topic, records(1, 10))
    reading = read_all(opened(source_on(kafka.client_options, topic)))
    first = reading.frames[0]
    assert first.columns is None
    assert first.news is not None
    assert [mark.partition for mark in first.news.marks] == [0, 1, 2]
    assert reading.events() == {"a": 10}


def test_partition_at_its_end_becomes_idle_and_active_again_with_its_next_record(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=2)
    part = opened(source_on(kafka.client_options, topic, stop_at_end=False, idle_after_ms=300))
    reading = read_until(part, lambda r: {mark.partition for mark in r.marks() if mark.mode == IDLE} == {0, 1})
    produce(kafka.client_options, topic, records(0, 1))
    read_until(part, lambda r: r.events()["a"] == 1, reading=reading)
    last = reading.marks()[-1]
    assert (last.partition, last.mode, last.top_ms) == (0, ACTIVE, START_MS)


def test_partition_with_unread_records_is_not_idle_however_long_the_process_stood_still(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspended machine must not make the events late that came meanwhile."""
    monkeypatch.setattr(kafka_source, "FRAME_ROWS", 1)
    monkeypatch.setattr(kafka_source, "READ_ROWS", 1)
    topic = make_topic(partitions=3)
    part = opened(source_on(kafka.client_options, topic, stop_at_end=False, idle_after_ms=700))
    produce(kafka.client_options, topic, [r for number in range(3) for r in records(number, 1, service=f"{number}")])
    reading = read_until(part, lambda r: r.events().total() == 3 and len(part._at_end) == 3)
    produce(kafka.client_options, topic, [r for number in range(3) for r in records(number, 4, service=f"{number}")])
    time.sleep(1.0)
    stood_still = len(reading.frames)
    read_until(part, lambda r: r.events().total() == 15, reading=reading)
    for length in range(stood_still, len(reading.frames)):
        so_far = Reading(reading.frames[: length + 1])
        idle = {
            mark.partition for mark in Reading(reading.frames[stood_still : length + 1]).marks() if mark.mode == IDLE
        }
        assert [number for number in idle if so_far.events()[str(number)] < 5] == []


def test_partition_is_not_idle_while_no_broker_answers(
    start_kafka: Callable[..., EmbeddedKafka], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Producers are cut off as well, and will bring what they have when the broker is back."""
    monkeypatch.setattr(kafka_source, "IDLE_ANSWER_S", 0.2)
    broker = start_kafka()
    create_topic(broker.client_options, "events", partitions=2)
    part = opened(source_on(broker.client_options, "events", stop_at_end=False, idle_after_ms=1000))
    produce(broker.client_options, "events", [*records(0, 1), *records(1, 1)])
    reading = read_until(part, lambda r: r.events()["a"] == 2 and len(part._at_end) == 2)
    broker.freeze()
    asked = time.monotonic()
    while time.monotonic() - asked < 3.0:
        reading.frames += part.next_batch()
        time.sleep(0.02)
    assert [mark for mark in reading.marks() if mark.mode == IDLE] == []
    broker.thaw()
    read_until(part, lambda r: {mark.partition for mark in r.marks() if mark.mode == IDLE} == {0, 1}, reading=reading)
    assert reading.events() == {"a": 2}


def test_last_that_is_told_of_each_partition_is_its_end_behind_its_last_record(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=3)
    produce(kafka.client_options, topic, [*records(0, 30), *records(2, 5)])
    reading = read_all(opened(source_on(kafka.client_options, topic)))
    last = {mark.partition: mark for mark in reading.marks()}
    assert [last[number].mode for number in range(3)] == [ENDED] * 3
    assert [last[number].top_ms for number in (0, 2)] == [START_MS + 29, START_MS + 4]


# Where it ends.


def test_reading_to_the_end_stops_at_the_offsets_seen_at_the_start(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    """A producer that goes on, after the source has looked and while it reads, changes nothing."""
    topic = make_topic(partitions=2)
    produce(kafka.client_options, topic, [*records(0, 500), *records(1, 3)])
    part = opened(source_on(kafka.client_options, topic))
    produce(kafka.client_options, topic, [*records(0, 500, service="later"), *records(1, 500, service="later")])
    reading = read_until(part, lambda r: r.events()["a"] > 0)
    produce(kafka.client_options, topic, records(1, 50, service="later"))
    reading.frames += read_all(part).frames
    assert reading.events() == {"a": 503}
    resumed = read_all(opened(source_on(kafka.client_options, topic), part.snapshot()))
    assert resumed.events() == {"later": 1050}


def test_empty_topic_ends_at_once(kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened) -> None:
    reading = read_all(opened(source_on(kafka.client_options, make_topic(partitions=3))))
    assert reading.events() == {}
    assert {mark.mode for mark in reading.marks()} == {ENDED}


@pytest.mark.parametrize(("partitions", "sources"), [(1, 1), (1, 4), (3, 2), (64, 4)])
def test_every_partition_is_read_by_one_source(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, partitions: int, sources: int
) -> None:
    topic = make_topic(partitions=partitions)
    produce(
        kafka.client_options,
        topic,
        [r for number in range(partitions) for r in records(number, 7, service=f"{number}")],
    )
    source = source_on(kafka.client_options, topic, sources=sources)
    readings = [read_all(opened(source, number=number)) for number in range(sources)]
    assert sum((reading.events() for reading in readings), start=Reading().events()) == {
        str(number): 7 for number in range(partitions)
    }
    for number, reading in enumerate(readings):
        assert {int(service) % sources for service in reading.events()} <= {number}


def test_stop_that_is_asked_for_ends_the_source_at_its_next_batch(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=1)
    produce(kafka.client_options, topic, records(0, 100))
    wishes: list[bool] = []
    part = opened(source_on(kafka.client_options, topic, stop_at_end=False, stopping=lambda: bool(wishes)))
    read_until(part, lambda r: r.events()["a"] == 100)
    wishes.append(True)
    with pytest.raises(StopIteration):
        part.next_batch()


# Transactions: what was aborted is not there, and control records occupy offsets.


def transact(options: dict[str, str], topic: str, *, commit: bool, service: str, count: int = 5) -> None:
    producer = Producer({**options, "transactional.id": f"{topic}-writer"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(count):
        producer.produce(topic, event(START_MS + number, service), partition=0, timestamp=KAFKA_MS)
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


@pytest.mark.parametrize("last_commits", [True, False])
def test_aborted_records_do_not_count_and_the_end_is_found_behind_them(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, *, last_commits: bool
) -> None:
    topic = make_topic(partitions=1)
    for commit, service in [(True, "a"), (False, "ghost"), (True, "a"), (last_commits, "a" if last_commits else "x")]:
        transact(kafka.client_options, topic, commit=commit, service=service)
    part = opened(source_on(kafka.client_options, topic))
    reading = read_all(part)
    assert reading.events() == {"a": 15 if last_commits else 10}
    assert part._positions[0].offset == end_offsets(kafka.client_options, topic)[0] == 24


def test_position_behind_control_records_survives_their_retention(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, delete_before: Callable[..., None]
) -> None:
    """All records were read, so nothing is lost when a quiet topic is emptied by retention."""
    topic = make_topic(partitions=1)
    transact(kafka.client_options, topic, commit=True, service="a")
    part = opened(source_on(kafka.client_options, topic, stop_at_end=False))
    read_until(part, lambda r: r.events()["a"] == 5 and bool(part._at_end))
    delete_before(topic, {0: end_offsets(kafka.client_options, topic)[0]})
    transact(kafka.client_options, topic, commit=True, service="b")
    resumed = read_all(opened(source_on(kafka.client_options, topic), part.snapshot()))
    assert resumed.events() == {"b": 5}


def test_open_transaction_is_not_waited_for(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=1)
    produce(kafka.client_options, topic, records(0, 5))
    writer = Producer({**kafka.client_options, "transactional.id": f"{topic}-writer"})
    writer.init_transactions(30)
    writer.begin_transaction()
    writer.produce(topic, event(START_MS, "open"), partition=0, timestamp=KAFKA_MS)
    writer.flush(30)
    try:
        assert read_all(opened(source_on(kafka.client_options, topic))).events() == {"a": 5}
    finally:
        writer.abort_transaction(30)


# The quota of an epoch.


def test_source_rests_when_its_quota_is_read_and_goes_on_in_the_next_epoch(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "QUOTA_ROWS", 100)
    monkeypatch.setattr(kafka_source, "FRAME_ROWS", 40)
    monkeypatch.setattr(kafka_source, "READ_ROWS", 40)
    topic = make_topic(partitions=1)
    bad = [NewRecord(b"oops", None, 0, timestamp_ms=KAFKA_MS) for _ in range(300)]
    produce(kafka.client_options, topic, [*records(0, 300), *bad])
    part = opened(source_on(kafka.client_options, topic, stop_at_end=False))
    epochs = []
    whole = Reading()
    deadline = time.monotonic() + 60
    while (sum(whole.events().values()), len(whole.dead())) != (300, 300):
        reading = Reading()
        quiet = 0
        while quiet < 30 and time.monotonic() < deadline:
            frames = part.next_batch()
            quiet = 0 if frames else quiet + 1
            reading.frames += frames
            time.sleep(0.005)
        epochs.append(sum(reading.events().values()) + len(reading.dead()))
        whole.frames += reading.frames
        part.snapshot()
        assert time.monotonic() < deadline
    assert max(epochs) < 100 + 40, "an epoch brought more than its quota and the frame that was under way"
    assert len(epochs) >= 5


# Where the log ends, as the page tells it.


def test_end_of_the_log_is_not_believed_while_the_cluster_says_nothing(
    start_kafka: Callable[..., EmbeddedKafka], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline whose Kafka is gone would look as if it had nothing to do."""
    monkeypatch.setattr(topic_watch, "WATCH_EVERY_S", 0.1)
    monkeypatch.setattr(topic_watch, "ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.setattr(flow_vitals, "SILENT_AFTER_S", 2.0)
    broker = start_kafka()
    options = {"bootstrap.servers": broker.bootstrap_servers}
    create_topic(options, "events", partitions=1)
    produce(options, "events", records(0, 3))
    source = source_on(options, "events", stop_at_end=False)
    part = opened(source)

    def at_end(_: Reading) -> bool:
        return largest_lag_s(source.vitals, time.time()) == 0

    reading = read_until(part, lambda r: r.events()["a"] == 3 and at_end(r))
    broker.freeze()
    assert not at_end(read_until(part, lambda r: not at_end(r), reading=reading))
    broker.thaw()
    assert at_end(read_until(part, at_end, reading=reading))

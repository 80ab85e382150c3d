"""The exactly-once sink against a real broker, partition by partition: crashes are simulated by not closing."""

from __future__ import annotations

import pickle
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from operators.kernels.codec import StateError
from sinks.kafka import EXPIRY_SNAPSHOTS, ExactlyOnceKafkaSink, KafkaOutputPartition
from sinks.records import OutputRecords
from sinks.topics import OutputTopic, ensure_topics
from sources.errors import OutputError
from tests.kafka_log import end_offsets, read_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import KafkaCluster, Topics

HOUR_MS = 3_600_000
STEP = "anomaly.windows"


def frame(*ids: str, at_ms: int = 0, headers: Any = None) -> OutputRecords:
    """Make records whose key and value tell their id."""
    return OutputRecords(
        keys=[f"k-{id_}".encode() for id_ in ids],
        values=[f"v-{id_}".encode() for id_ in ids],
        ids=[id_.encode() for id_ in ids],
        headers=headers,
        expire_ms=at_ms,
    )


class Harness:
    """One output topic, and the sink partitions that a test opens on it."""

    def __init__(self, kafka: KafkaCluster, topic: str, **options: Any) -> None:
        self.options = kafka.client_options
        self.sink = ExactlyOnceKafkaSink(client=self.options, flow="test", topic=topic, **{"partitions": 1, **options})
        self.opened: list[KafkaOutputPartition] = []

    def open(self, state: bytes | None = None, part: str = "00000") -> KafkaOutputPartition:
        """Start or resume a partition; a second one is what follows after a crash of the first."""
        self.opened.append(self.sink.build_part(STEP, part, state))
        return self.opened[-1]

    def close(self, part: KafkaOutputPartition) -> None:
        """End a partition the way Bytewax does."""
        self.opened.remove(part)
        part.close()

    def ids(self) -> list[str]:
        """Return the ids in the topic, in the order of the log."""
        return [dict(record.headers)["id"].decode() for record in read_topic(self.options, self.sink.topic)]


@pytest.fixture
def harness(kafka: KafkaCluster, make_topic: Callable[..., str]) -> Iterator[Callable[..., Harness]]:
    made: list[Harness] = []

    def make(**options: Any) -> Harness:
        made.append(Harness(kafka, make_topic("out", partitions=options.get("partitions", 1)), **options))
        return made[-1]

    yield make
    for one in made:
        for partition in one.opened:
            partition.close()


@pytest.mark.parametrize("gather_s", [0.0, 0.5, None])
def test_records_arrive_with_their_key_value_and_headers(
    harness: Callable[..., Harness], gather_s: float | None
) -> None:
    h = harness(gather_s=gather_s, headers=(("schema", b"window/1"),))
    part = h.open()
    part.write_batch([frame("a", "b", at_ms=7, headers=[[("h", b"1")], [("h", None), ("h", b"\xff")]]), frame()])
    part.write_batch([OutputRecords([None], [None], [b"c"], None, 8)])
    part.snapshot()
    first, second, third = read_topic(h.options, h.sink.topic)
    assert (first.key, first.value) == (b"k-a", b"v-a")
    assert first.headers == (("h", b"1"), ("schema", b"window/1"), ("id", b"a"))
    assert second.headers == (
        ("h", None), ("h", b"\xff"), ("schema", b"window/1"), ("id", b"b"), ("event-time-ms", b"7")
    )  # fmt: skip
    assert (third.key, third.value) == (None, None)
    counts = h.sink.counts()
    assert (counts.written, counts.suppressed) == (3, 0)


def test_a_batch_is_committed_without_a_snapshot(harness: Callable[..., Harness]) -> None:
    h = harness(gather_s=0.0)
    h.open().write_batch([frame("a")])
    deadline = time.monotonic() + 30
    while h.ids() != ["a"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert h.ids() == ["a"]


def test_records_that_are_gathered_are_committed_together_without_a_snapshot(harness: Callable[..., Harness]) -> None:
    h = harness(gather_s=1.0)
    part = h.open()
    part._opened.result()
    for name in "abc":
        part.write_batch([frame(name)])
    deadline = time.monotonic() + 30
    while not h.ids() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert h.ids() == ["a", "b", "c"]
    assert h.sink.counts().transactions == 1


def test_neither_a_snapshot_nor_the_end_waits_for_more_to_gather(harness: Callable[..., Harness]) -> None:
    h = harness(gather_s=3600.0)
    part = h.open()
    for name in "ab":
        part.write_batch([frame(name)])
        part.snapshot()
    assert h.ids() == ["a", "b"]
    h.close(part)


def test_records_keep_their_order_whoever_produces_them(harness: Callable[..., Harness]) -> None:
    h = harness(gather_s=0.0)
    part = h.open()
    names = [f"{n:05d}" for n in range(2000)]
    for start in range(0, len(names), 5):
        part.write_batch([frame(*names[start : start + 5])])
        if start > len(names) // 4:
            part._opened.result()
        time.sleep(start % 7 / 10_000)  # the first batches come before it is open, some during a commit, some between
    part.snapshot()
    assert h.ids() == names
    assert h.sink.counts().transactions > 1


def test_an_epoch_is_committed_by_its_snapshot_and_not_before(harness: Callable[..., Harness]) -> None:
    h = harness(gather_s=None)
    part = h.open()
    part._opened.result()
    part.write_batch([frame("a")])
    part.write_batch([frame("b")])
    assert h.ids() == []
    part.snapshot()
    assert h.ids() == ["a", "b"]
    assert h.sink.counts().transactions == 1


def test_an_epoch_without_a_snapshot_is_aborted_by_the_next_execution(harness: Callable[..., Harness]) -> None:
    h = harness(gather_s=None)
    crashed = h.open()
    crashed._opened.result()
    crashed.write_batch([frame("a")])
    resumed = h.open()
    resumed.write_batch([frame("a"), frame("b")])
    resumed.snapshot()
    assert h.ids() == ["a", "b"]


@pytest.mark.parametrize("gather_s", [0.0, 0.5, None])
def test_a_crash_before_the_first_durable_snapshot_repeats_nothing(
    harness: Callable[..., Harness], gather_s: float | None
) -> None:
    h = harness(gather_s=gather_s)
    crashed = h.open()
    crashed.write_batch([frame("a", "b")])
    crashed.snapshot()
    resumed = h.open(state=None)
    resumed.write_batch([frame("a"), frame("b", "c")])
    resumed.snapshot()
    assert h.ids() == ["a", "b", "c"]
    assert h.sink.counts().suppressed == 2


@pytest.mark.parametrize("gather_s", [0.0, 0.5, None])
def test_records_after_the_snapshot_are_dropped_when_they_come_again(
    harness: Callable[..., Harness], gather_s: float | None
) -> None:
    h = harness(gather_s=gather_s)
    first = h.open()
    first.write_batch([frame("a")])
    durable = first.snapshot()
    first.write_batch([frame("b"), frame("c")])
    first.snapshot()
    second = h.open(durable)
    second.write_batch([frame("b")])
    halfway = second.snapshot()
    third = h.open(halfway)
    third.write_batch([frame("c", "d")])
    end = third.snapshot()
    fourth = h.open(end)
    fourth.write_batch([frame("e")])
    fourth.snapshot()
    assert h.ids() == ["a", "b", "c", "d", "e"]


def test_an_older_snapshot_writes_nothing_again(harness: Callable[..., Harness]) -> None:
    h = harness()
    part = h.open()
    part.write_batch([frame("a")])
    old = part.snapshot()
    for name in "bcdef":
        part.write_batch([frame(name)])
        part.snapshot()
    restored = h.open(old)
    restored.write_batch([frame(*"bcdefg")])
    restored.snapshot()
    assert h.ids() == list("abcdefg")


def test_ids_that_do_not_come_again_keep_the_offset_until_event_time_has_passed_them(
    harness: Callable[..., Harness],
) -> None:
    h = harness()
    part = h.open()
    part.write_batch([frame("a", at_ms=1000)])
    durable = part.snapshot()
    part.write_batch([frame("gone", at_ms=2000), frame("back", at_ms=2000)])
    part.snapshot()
    resumed = h.open(durable)
    resumed.write_batch([frame("back", at_ms=2000)])
    for _ in range(EXPIRY_SNAPSHOTS):
        pinned = resumed.snapshot()
    resumed.write_batch([frame("late", at_ms=2001 + HOUR_MS)])
    free = resumed.snapshot()
    assert pinned != free
    assert h.sink.counts().expired == 1
    again = h.open(free)
    again.write_batch([frame("back")])
    again.snapshot()
    assert h.ids() == ["a", "gone", "back", "late", "back"], "only ids after the offset are recognised"


def test_ids_are_not_given_up_before_enough_snapshots(harness: Callable[..., Harness]) -> None:
    h = harness()
    part = h.open()
    part.write_batch([frame("x", at_ms=0)])
    part.snapshot()
    resumed = h.open()
    resumed.write_batch([frame("y", at_ms=100 * HOUR_MS)])
    resumed.snapshot()
    resumed.write_batch([frame("x", at_ms=0)])
    resumed.snapshot()
    assert h.ids() == ["x", "y"]


def test_a_zombie_is_fenced_and_says_so(harness: Callable[..., Harness]) -> None:
    h = harness(gather_s=None)
    zombie = h.open()
    zombie._opened.result()
    zombie.write_batch([frame("a")])
    heir = h.open()
    heir.write_batch([frame("a")])
    heir.snapshot()
    with pytest.raises(OutputError, match=r"taken over by another producer.*second instance") as caught:
        zombie.snapshot()
    assert "\n" not in str(caught.value)
    with pytest.raises(OutputError, match="taken over"):
        zombie.write_batch([frame("b")])
    assert h.ids() == ["a"]


@pytest.mark.parametrize("gather_s", [0.0, 0.5, None])
def test_a_record_that_the_broker_refuses_stops_the_worker_and_leaves_nothing_half_written(
    kafka: KafkaCluster, make_topic: Callable[..., str], gather_s: float | None
) -> None:
    h = Harness(kafka, make_topic("small", partitions=1, max_message_bytes="2000"), gather_s=gather_s)
    part = h.open()
    noise = random.Random(7).randbytes(200_000)
    part.write_batch([OutputRecords([b"k", b"k", b"k"], [b"1", noise, b"3"], [b"1", b"2", b"3"], None, 0)])
    with pytest.raises(OutputError, match=r"partition 0 can't be written: .*large.*; the flow stops, and resumes"):
        part.snapshot()
    with pytest.raises(OutputError, match="can't be written"):
        part.write_batch([frame("later")])
    h.close(part)
    assert h.ids() == []


def test_a_partition_that_does_not_exist_stops_the_worker_with_one_line(harness: Callable[..., Harness]) -> None:
    h = harness(partitions=1)
    part = h.open(part="00007")
    with pytest.raises(OutputError, match="partition 7 can't be written") as caught:
        part.snapshot()
    assert "\n" not in str(caught.value)


def test_partitions_write_to_the_partition_of_their_number_and_sort_by_it(harness: Callable[..., Harness]) -> None:
    h = harness(partitions=12)
    parts = h.sink.list_parts()
    assert parts == sorted(parts)
    assert [h.sink.part_fn(f"shard-{n:02d}") % 12 for n in (0, 7, 13, 63)] == [0, 7, 1, 3]
    for name in (parts[3], parts[11]):
        part = h.open(part=name)
        part.write_batch([frame(name)])
        part.snapshot()
    assert [(r.partition, r.value) for r in read_topic(h.options, h.sink.topic)] == [(3, b"v-00003"), (11, b"v-00011")]


def test_a_topic_that_was_created_a_moment_ago_can_be_written(kafka: KafkaCluster, topics: Topics) -> None:
    for number in range(3):
        h = Harness(kafka, f"{topics.windows}-{number}", partitions=8)
        ensure_topics(kafka.client_options, [OutputTopic(h.sink.topic)], partitions=8)
        for name in h.sink.list_parts():
            h.open(part=name).write_batch([frame(name)])
        for part in h.opened:
            part.snapshot()
            part.close()
        assert sorted(h.ids()) == h.sink.list_parts()


def test_foreign_records_and_headers_of_rejected_records_do_not_mislead_the_sink(
    harness: Callable[..., Harness],
) -> None:
    h = harness()
    part = h.open()
    spoof = [[("id", b"victim"), ("event-time-ms", b"not a number")], [("event-time-ms", b"")]]
    part.write_batch([frame("one", "two", headers=spoof)])
    part.snapshot()
    producer = Producer(h.options)
    producer.produce(h.sink.topic, b"foreign", partition=0)
    assert producer.flush(30) == 0
    resumed = h.open()
    resumed.write_batch([frame("victim"), frame("one", "two", headers=spoof)])
    resumed.snapshot()
    written = [record.value for record in read_topic(h.options, h.sink.topic)]
    assert written == [b"v-one", b"v-two", b"foreign", b"v-victim"]


def test_state_of_another_topic_begins_anew_and_unknown_state_is_refused(harness: Callable[..., Harness]) -> None:
    old, new = harness(), harness()
    part = old.open()
    part.write_batch([frame(*"abc")])
    state = part.snapshot()
    moved = new.open(state)
    moved.write_batch([frame("a")])
    moved.snapshot()
    assert new.ids() == ["a"]
    with pytest.raises(StateError):
        new.open(pickle.dumps({"off": 3}))


def test_snapshots_of_an_idle_partition_keep_their_offset(harness: Callable[..., Harness]) -> None:
    h = harness()
    part = h.open()
    part.write_batch([frame("a")])
    first = part.snapshot()
    assert part.snapshot() == first
    part.write_batch([frame()])
    assert part.snapshot() == first


def test_more_records_than_fit_into_the_producer_arrive_in_order(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.options = dict(h.options)
    small = {**h.options, "queue.buffering.max.messages": 100}
    h.sink = ExactlyOnceKafkaSink(client=small, flow="test", topic=h.sink.topic, partitions=1)
    part = h.open()
    names = [f"{n:05d}" for n in range(3000)]
    part.write_batch([frame(*names[:1500]), frame(*names[1500:])])
    part.snapshot()
    assert h.ids() == names


def test_closing_after_the_last_snapshot_loses_nothing_and_leaves_no_transaction(
    harness: Callable[..., Harness],
) -> None:
    h = harness(gather_s=None)
    part = h.open()
    part.write_batch([frame("a")])
    part.snapshot()
    part.write_batch([frame("b")])
    h.close(part)
    assert h.ids() == ["a"]
    ends = [end_offsets(h.options, h.sink.topic, isolation=level) for level in ("read_committed", "read_uncommitted")]
    assert ends[0] == ends[1], "an open transaction would hold readers back"

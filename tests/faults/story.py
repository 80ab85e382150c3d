"""A log with incidents in it, told in beats, and what the flow must have written when it has heard it all.

The log is a function of a seed, so what follows from it is worked out once, by a flow that nobody disturbs, and held
against the oracle; every test that hurts something compares its topics with that.
"""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections import Counter
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, Message, Producer

from tests.conftest import PARTITIONS, KafkaCluster, Topics
from tests.dirty_log import START_MS, event
from tests.flow_process import settings_for
from tests.kafka_log import LIMITS, LogRecord, NewRecord, create_topics, produce, read_topic, wait_for_records
from tests.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from local.kafka import EmbeddedKafka

BEAT_MS = 1_000
KAFKA_MS = START_MS + 30 * 24 * 3_600_000  # no story is longer
LENGTH_MS, SLIDE_MS, LATENESS_MS, TTL_MS = 6_000, 1_000, 500, 15_000
NEVER_MS = 24 * 3_600_000
SETTINGS = {
    "WINDOW__LENGTH_MS": str(LENGTH_MS),
    "WINDOW__SLIDE_MS": str(SLIDE_MS),
    "WINDOW__ALLOWED_LATENESS_MS": str(LATENESS_MS),
    "WINDOW__SERIES_TTL_MS": str(TTL_MS),
    # A log that somebody holds up is not idle: what is late must be decided by the log.
    "WINDOW__IDLE_AFTER_MS": str(NEVER_MS),
}
SERVICES = ("pay", "cart", "search", "mail")
EVENTS_PER_BEAT = 20
INCIDENT = range(45, 60)
SILENCE = range(70, 80)
CYCLE = 100
FEED_TIMEOUT_S = 120.0

Beat = list[NewRecord]
Record = tuple[str, bytes | None, bytes | None]
"""Topic, by what it is for, key and value of a record."""


@dataclass(frozen=True)
class Story:
    """A log in the order in which it is written.

    Attributes:
        beats: Records of each second of event time; the last beat is heartbeats that close every window.
        closed_ms: The end of the last window that they close.
    """

    beats: list[Beat]
    closed_ms: int

    def by_partition(self) -> list[list[bytes | None]]:
        """Give the values of each partition."""
        return [
            [record.value for beat in self.beats for record in beat if record.partition == partition]
            for partition in range(PARTITIONS)
        ]


def story(seed: int, *, beats: int = 100, surge: range = range(0), times: int = 1) -> Story:
    """Tell a story: slow and failing requests, a service that falls silent, late events, and records that are none.

    Args:
        seed: Of everything random in it.
        beats: Seconds of event time.
        surge: Beats with more traffic than usual.
        times: How much more.
    """
    told = list(islice(endless_beats(seed, surge=surge, times=times), beats))
    return Story([*told, last_beat(beats)], _closed_ms(beats))


def endless_beats(seed: int, *, surge: range = range(0), times: int = 1) -> Iterator[Beat]:
    """Tell a story that has no end, in which the same things happen every 100 beats; see `story`."""
    rng = random.Random(seed)
    for number in count():
        records = _records_in(number) * (times if number in surge else 1)
        yield [_record(rng.randrange(PARTITIONS), _value(rng, number)) for _ in range(records)]


def last_beat(beats: int) -> Beat:
    """Make the heartbeats that close every window of so many beats."""
    value = _heartbeat(_closed_ms(beats) + LATENESS_MS)
    return [_record(partition, value) for partition in range(PARTITIONS)]


def _closed_ms(beats: int) -> int:
    return START_MS + beats * BEAT_MS + LENGTH_MS


def _records_in(number: int) -> int:
    return EVENTS_PER_BEAT * (len(SERVICES) - (number % CYCLE in SILENCE))


def _value(rng: random.Random, number: int) -> bytes | None:
    """One record value of a beat; most are one event."""
    kind = rng.random()
    if kind < 0.92:
        return _request(rng, number)
    if kind < 0.95:
        return b"[" + b",".join(_request(rng, number) for _ in range(3)) + b"]"
    if kind < 0.97:
        return _heartbeat(START_MS + number * BEAT_MS)
    return rng.choice([None, b"{", b"[1,{}]", b'{"timestamp_ms":5}'])


def _request(rng: random.Random, number: int) -> bytes:
    service = rng.choice([name for name in SERVICES if name != "mail" or number % CYCLE not in SILENCE])
    at_ms = START_MS + number * BEAT_MS + rng.randrange(BEAT_MS) - rng.choice([0, 0, 0, 0, 0, 0, 300, 5_000])
    broken = number % CYCLE in INCIDENT
    latency_ms = rng.lognormvariate(3, 0.4) * (12 if broken and service == "search" else 1)
    failing = rng.random() < (0.5 if broken and service == "pay" else 0.005)
    return event(at_ms, service, rng.choice(["/", "/x"]), round(latency_ms, 3), 503 if failing else 200)


def _heartbeat(at_ms: int) -> bytes:
    return json.dumps({"timestamp_ms": at_ms, "heartbeat": True}).encode()


def _record(partition: int, value: bytes | None) -> NewRecord:
    return NewRecord(value, b"k", partition, (("trace", b"t"),), timestamp_ms=KAFKA_MS)


class Feeder(threading.Thread):
    """Writes a story beat by beat, through whatever happens to the brokers, each record once.

    Attributes:
        beats: What it writes.
        hurry: Set once it has been told to finish.
        hold_at: Beat before which it waits to be told to finish; None to go on.
    """

    def __init__(self, kafka: KafkaCluster, topic: str, beats: Iterable[Beat], *, pace_s: float) -> None:
        """Be ready to start.

        Args:
            kafka: Where to.
            topic: The input topic.
            beats: What to write.
            pace_s: How long to wait after each beat.
        """
        super().__init__(daemon=True)
        self._options, self._topic, self._pace_s = kafka.client_options, topic, pace_s
        self._failures: list[KafkaError] = []
        self.hurry = threading.Event()
        self._released = threading.Event()
        self.beats = beats
        self.hold_at: int | None = None
        self._written = 0
        self._moved = threading.Condition()

    def run(self) -> None:
        """Write all beats, each confirmed before the next."""
        limits = {**LIMITS, "message.timeout.ms": str(int(FEED_TIMEOUT_S * 1000)), "log_level": "0"}
        producer = Producer({**self._options, "enable.idempotence": "true", "linger.ms": "5", **limits})
        for number, beat in enumerate(self.beats):
            if number == self.hold_at:
                self._released.wait(FEED_TIMEOUT_S)
            for record in beat:
                self._produce(producer, record)
            producer.flush(FEED_TIMEOUT_S)
            with self._moved:
                self._written += 1
                self._moved.notify_all()
            self.hurry.wait(self._pace_s)

    def wait_for(self, beats: int) -> None:
        """Wait until so many beats are written."""
        with self._moved:
            assert self._moved.wait_for(lambda: self._written >= beats, FEED_TIMEOUT_S), "the story is not written"

    def finish(self) -> None:
        """Write the rest at once, and see that every record was confirmed."""
        self.hurry.set()
        self._released.set()
        self.join(FEED_TIMEOUT_S)
        assert not self.is_alive(), "the story is not written"
        assert self._failures == []

    def _produce(self, producer: Producer, record: NewRecord) -> None:
        place: dict[str, Any] = {"partition": record.partition, "timestamp": record.timestamp_ms}
        producer.produce(
            self._topic,
            record.value,
            record.key,
            headers=list(record.headers),
            on_delivery=self._delivered,
            **place,
        )
        producer.poll(0)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failures.append(error)


@dataclass(frozen=True)
class Outcome:
    """What lies in the output topics: how often each record, by what its topic is for, key and value."""

    records: Counter[Record]

    def until(self, end_ms: int) -> Outcome:
        """Keep what windows that end at `end_ms` or before say, and every dead letter."""
        told = {record: times for record, times in self.records.items() if record[2] is not None or not _states(record)}
        kept = Counter({record: times for record, times in told.items() if _end_ms(record) <= end_ms})
        # A tombstone does not say of which window it is: there is one for each resolved episode.
        kept.update(
            ("alerts_state", key, None) for role, key, value in list(kept) if role == "alerts" and _resolves(value)
        )
        return Outcome(kept)

    def count(self, role: str) -> int:
        """Count the records of a topic."""
        return sum(times for record, times in self.records.items() if record[0] == role)

    def statuses(self) -> Counter[str]:
        """Count the alert transitions by status."""
        found = [json.loads(record[2] or b"")["status"] for record in self.records if record[0] == "alerts"]
        return Counter(found)


def _states(record: Record) -> bool:
    return record[0] == "alerts_state"


def _resolves(value: bytes | None) -> bool:
    return bool(json.loads(value or b"")["status"] == "resolved")


def _end_ms(record: Record) -> int:
    role, _, value = record
    return 0 if role == "dead_letter" else int(json.loads(value or b"")["window_end_ms"])


def outcome_in(kafka: KafkaCluster, topics: Topics) -> Outcome:
    """Read all output topics."""
    found: Counter[Record] = Counter()
    for role in ("windows", "alerts", "alerts_state", "dead_letter"):
        found.update(_told(role, record) for record in read_topic(kafka.client_options, getattr(topics, role)))
    return Outcome(found)


def _told(role: str, record: LogRecord) -> Record:
    """Take from a record what the log decides; a dead letter says it in its headers."""
    if role != "dead_letter":
        return role, record.key, record.value
    headers = {name: value for name, value in record.headers if name.startswith("dlq.")}
    place = b"|".join(headers.get(f"dlq.{name}") or b"" for name in ("source.partition", "source.offset", "item"))
    return role, place, record.value


def assert_same(found: Outcome, expected: Outcome) -> None:
    """Assert that nothing is lost, nothing is there twice, and nothing differs."""
    lost, surplus = expected.records - found.records, found.records - expected.records
    assert list(lost)[:5] == [], f"{lost.total()} records are lost"
    assert list(surplus)[:5] == [], f"{surplus.total()} records are there twice, or differ"


def oracle_of(log: list[list[bytes | None]]) -> Oracle:
    """Let the oracle read the values of each partition."""
    oracle = Oracle(length_ms=LENGTH_MS, slide_ms=SLIDE_MS, lateness_ms=LATENESS_MS, ttl_ms=TTL_MS)
    for partition, values in enumerate(log):
        for offset, value in enumerate(values):
            oracle.record(partition, offset, value, KAFKA_MS)
    return oracle


def assert_told_by_the_oracle(found: Outcome, oracle: Oracle, until_ms: int | None = None) -> None:
    """Assert that windows have the counts of the oracle, and dead letters are those it rejects.

    Args:
        found: What lies in the topics.
        oracle: What has read the log.
        until_ms: End of the last window to compare; None for all, up to the end of the job.
    """
    rows = {}
    for (role, _, value), times in found.records.items():
        if role == "windows":
            row = json.loads(value or b"")
            assert times == 1
            rows[row["service"], row["endpoint"], row["window_end_ms"]] = (row["count"], row["errors"])
    expected = {key: (row["count"], row["errors"]) for key, row in oracle.windows().items()}
    assert rows == {key: counts for key, counts in expected.items() if until_ms is None or key[2] <= until_ms}
    letters = {
        (int(partition), int(offset), int(item) if item else None)
        for role, place, _ in found.records
        if role == "dead_letter"
        for partition, offset, item in [(place or b"").split(b"|")]
    }
    assert letters == oracle.dead


def write(kafka: KafkaCluster, topics: Topics, beats: Sequence[Beat]) -> None:
    """Write beats at once."""
    produce(kafka.client_options, topics.events, [record for beat in beats for record in beat])


def settings_of(kafka: KafkaCluster, topics: Topics, **more: str) -> dict[str, str]:
    """Settings of a flow that hears a story."""
    # The line that says why a flow stopped must not be looked for under a backtrace of Rust.
    python = {"RUST_BACKTRACE": "0", "PYTHONFAULTHANDLER": "1"}
    return {**settings_for(kafka, topics, **{**SETTINGS, **more}), **python}


def wait_for_windows(kafka: KafkaCluster, topics: Topics, number: int, *, timeout_s: float = 90.0) -> None:
    """Wait until the windows topic holds so many records."""
    wait_for_records(kafka.client_options, topics.windows, number, timeout_s=timeout_s)


def topics_on(embedded: EmbeddedKafka | KafkaCluster, **config: str) -> tuple[KafkaCluster, Topics]:
    """Make an input topic, and names of the others, on a cluster of the test's own."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    roles = ("events", "windows", "alerts", "alerts-state", "dead-letter", "truth")
    names = Topics(prefix, *(f"{prefix}.{role}" for role in roles))
    create_topics(embedded.client_options, [names.events], partitions=PARTITIONS, **config)
    return KafkaCluster(embedded.bootstrap_servers, embedded.client_options), names


def eventually(what: Callable[[], bool], timeout_s: float = 60.0, *, pause_s: float = 0.05) -> bool:
    """Tell whether something becomes true in time."""
    gate = threading.Event()
    for _ in range(int(timeout_s / pause_s)):
        if what():
            return True
        gate.wait(pause_s)
    return what()

"""Records to Kafka, at the pace of event time: topics made, every delivery checked, a stop that loses nothing."""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]  # public, but not in its __all__
from confluent_kafka.cimpl import NewTopic

from simulator.encode import CONTENTS

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from simulator.encode import Records
    from simulator.stream import Chunk

METADATA_TIMEOUT_S: Final = 10.0
FLUSH_TIMEOUT_S: Final = 60.0
QUEUE_MAX_RECORDS: Final = 500_000
"""Records that wait in the client for the broker, at most."""

SLICE_S: Final = 0.02
"""Shortest wait for event time: what becomes due within it is handed over together."""

WAIT_MAX_S: Final = 0.5
"""Longest wait between two looks at failed deliveries."""

SLICE_RECORDS: Final = 10_000
"""Records that are handed over between two looks at the stop signal, at most."""

_QUEUE_WAIT_S: Final = 0.01
_TIMESTAMP_AFTER_MAX: Final = "message.timestamp.after.max.ms"
_TIME_REFUSALS: Final = (KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD)
_LONG_MAX: Final = 2**63 - 1

PRODUCER_DEFAULTS: Final[Mapping[str, Any]] = {
    "acks": "all",
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "compression.type": "lz4",
    "queue.buffering.max.messages": QUEUE_MAX_RECORDS,
    "queue.buffering.max.kbytes": 262_144,
    # A line of its own says what went wrong; the client's own lines would bury it.
    "log_level": 0,
}


class PublishError(Exception):
    """The records can't be published; the message is one line for the person who started the program."""


def ensure_topic(client: Mapping[str, Any], topic: str, partitions: int) -> int:
    """Create a topic when it is missing, with the broker's own replication factor.

    An accelerated recording runs ahead of the wall clock, and brokers refuse records more than an hour ahead unless the
    topic says otherwise; a topic made here does.

    Args:
        client: Options of a Kafka client.
        topic: Name of the topic.
        partitions: Number of partitions of a new topic.

    Returns:
        The number of partitions that the topic has.

    Raises:
        PublishError: No broker answers in time, or it refuses.
    """
    admin = AdminClient({"log_level": 0, **client})
    servers = client.get("bootstrap.servers")
    try:
        found = admin.list_topics(timeout=METADATA_TIMEOUT_S).topics.get(topic)
        if found is not None and found.error is None:
            return len(found.partitions)
        new = NewTopic(topic, partitions, replication_factor=-1, config={_TIMESTAMP_AFTER_MAX: str(_LONG_MAX)})
        admin.create_topics([new], operation_timeout=METADATA_TIMEOUT_S)[topic].result(METADATA_TIMEOUT_S)
    except KafkaException as error:
        problem = error.args[0]
        if problem.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return len(admin.list_topics(topic, timeout=METADATA_TIMEOUT_S).topics[topic].partitions)
        raise PublishError(f"kafka at {servers} can't serve topic {topic}: {problem.str()}") from error
    return partitions


def retention_ms(client: Mapping[str, Any], topic: str) -> int | None:
    """Ask how long a topic keeps records, counted from their timestamps.

    Args:
        client: Options of a Kafka client.
        topic: An existing topic.

    Returns:
        Milliseconds; None when it keeps them for ever, or may not be asked.
    """
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    admin = AdminClient({"log_level": 0, **client})
    try:
        asked = admin.describe_configs([resource], request_timeout=METADATA_TIMEOUT_S)
        kept_ms = int(asked[resource].result(METADATA_TIMEOUT_S)["retention.ms"].value)
    except (KafkaException, KeyError, TimeoutError):
        # Only a warning rests on it, and not everybody who may write may read configurations.
        return None
    return kept_ms if kept_ms >= 0 else None


class Publisher:
    """An idempotent producer for one topic that never forgets a failed delivery."""

    def __init__(self, client: Mapping[str, Any], topic: str) -> None:
        """Connect lazily; nothing is sent yet.

        Args:
            client: Options of a Kafka client; they win over `PRODUCER_DEFAULTS`.
            topic: Where the records go.

        Raises:
            PublishError: The client refuses an option.
        """
        options = {
            **PRODUCER_DEFAULTS,
            **client,
            "enable.idempotence": True,
            # Success needs no call for each record: the client counts what is on its way, and every failure calls.
            "delivery.report.only.error": True,
            "on_delivery": self._on_failure,
            "error_cb": self._on_error,
        }
        try:
            self._producer = Producer(options)
        except KafkaException as error:
            raise PublishError(f"kafka client refuses its options: {error.args[0].str()}") from error
        self._topic = topic
        self.handed = 0
        self.failed = 0
        self.first_failure = ""
        self._fatal = ""
        self._refused_time = False

    @property
    def delivered(self) -> int:
        """Number of records that the broker acknowledged so far."""
        return self.handed - self.failed - len(self._producer)

    def send(self, records: Records) -> None:
        """Hand records over, waiting for room where the queue is full.

        Args:
            records: For this topic; their arrival becomes the timestamp of the record.

        Raises:
            PublishError: A delivery failed, now or before.
        """
        produce = self._producer.produce
        topic = self._topic
        # produce_batch would save the loop, but as of confluent-kafka 2.16 it takes no timestamps.
        for value, key, partition, arrival_ms in zip(
            records.values, records.keys, records.partitions, records.arrival_ms, strict=True
        ):
            try:
                produce(topic, value, key, partition, None, None, arrival_ms)
            except BufferError:
                self._wait_for_room(value, key, partition, arrival_ms)
        self.handed += len(records)
        self._producer.poll(0)
        self.check()

    def _wait_for_room(self, value: bytes, key: bytes | None, partition: int, arrival_ms: int) -> None:
        while True:
            self._producer.poll(_QUEUE_WAIT_S)
            self.check()
            with contextlib.suppress(BufferError):
                self._producer.produce(self._topic, value, key, partition, None, None, arrival_ms)
                return

    def check(self) -> None:
        """Complain about deliveries that failed.

        Raises:
            PublishError: There is one, or the client gave up.
        """
        if self.failed or self._fatal:
            raise PublishError(self.complaint())

    def complaint(self) -> str:
        """Say in one line what failed."""
        reason = self.first_failure or self._fatal
        if self._refused_time:
            reason += f"; if event time ran ahead of the broker's clock, raise the topic's {_TIMESTAMP_AFTER_MAX}"
        return f"{self.failed} of {self.handed} records were not delivered to {self._topic}: {reason}"

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until every record is acknowledged.

        Raises:
            PublishError: A delivery failed, or some are still unacknowledged after `timeout_s`.
        """
        remaining = self._producer.flush(timeout_s)
        self.check()
        if remaining:
            raise PublishError(
                f"{remaining} of {self.handed} records were not acknowledged on {self._topic} within {timeout_s:g} s"
            )

    def _on_failure(self, error: KafkaError | None, _record: object) -> None:
        if error is not None:
            self.failed += 1
            self._refused_time |= error.code() in _TIME_REFUSALS
            self.first_failure = self.first_failure or error.str()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()


@dataclass(frozen=True, slots=True)
class Pace:
    """How event time follows the wall clock.

    Attributes:
        start_ms: Event time at the beginning.
        speed: Event time per wall time; 0: as fast as possible.
    """

    start_ms: int
    speed: float

    def reached_ms(self, elapsed_s: float) -> float:
        """Give the event time that is due after some wall time."""
        return float("inf") if self.speed == 0 else self.start_ms + elapsed_s * 1000 * self.speed

    def wait_s(self, arrival_ms: int, elapsed_s: float) -> float:
        """Give the wall time until an event time is due, seconds; negative when it is overdue."""
        return 0.0 if self.speed == 0 else (arrival_ms - self.start_ms) / 1000 / self.speed - elapsed_s


@dataclass(slots=True)
class Progress:
    """How far publishing got.

    Attributes:
        event_time_ms: Event time that was reached.
        records: Records handed to Kafka for the events topic.
        incidents: Truth records handed to Kafka.
        contents: What the records hold, in the order of `CONTENTS`.
    """

    event_time_ms: int
    records: int = 0
    incidents: int = 0
    contents: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CONTENTS), dtype=np.int64))

    def of(self, content: str) -> int:
        """Give how many of one of `CONTENTS` were handed to Kafka."""
        return int(self.contents[CONTENTS.index(content)])


class Session:
    """One run of publishing: its pace, its stop signal, how far it got."""

    def __init__(
        self,
        events: Publisher,
        truth: Publisher | None,
        *,
        pace: Pace,
        stop: threading.Event,
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Prepare a run; its clock starts with `publish`.

        Args:
            events: Gets the records.
            truth: Gets the truth, each incident when it begins; None: nobody does.
            pace: How fast.
            stop: Once set, the sending ends after the slice that is being sent.
            on_progress: Called after every slice and while waiting.
        """
        self._events = events
        self._truth = truth
        self._pace = pace
        self._stop = stop
        self._on_progress = on_progress
        self._begun_s = time.monotonic()
        self.progress = Progress(pace.start_ms)

    def publish(self, chunks: Iterable[Chunk]) -> None:
        """Send chunks at their pace until they end or the run is stopped. Nothing is flushed yet.

        Raises:
            PublishError: A delivery failed.
        """
        self._begun_s = time.monotonic()
        for chunk in chunks:
            if len(chunk.truth) and self._truth is not None and self._wait_until(chunk.start_ms):
                self._truth.send(chunk.truth)
                self.progress.incidents += len(chunk.truth)
            sent = 0
            while sent < len(chunk.records) and self._wait_until(chunk.records.arrival_ms[sent] if chunk.paced else 0):
                reached_ms = self._reached_ms() if chunk.paced else chunk.records.arrival_ms[-1]
                due = bisect_right(chunk.records.arrival_ms, reached_ms, lo=sent)
                sent = self._send(chunk.records, sent, max(sent + 1, min(due, sent + SLICE_RECORDS)))
            if self._stop.is_set():
                return

    def _send(self, records: Records, first: int, last: int) -> int:
        part = records.part(first, last)
        self._events.send(part)
        self.progress.records += len(part)
        self.progress.contents += part.contents.sum(axis=0)
        self.progress.event_time_ms = part.arrival_ms[-1]
        self._on_progress(self.progress)
        return last

    def _reached_ms(self) -> float:
        return self._pace.reached_ms(time.monotonic() - self._begun_s)

    def _wait_until(self, event_time_ms: int) -> bool:
        """Wait until an event time is due, and tell whether to go on."""
        while not self._stop.is_set():
            wait_s = self._pace.wait_s(event_time_ms, time.monotonic() - self._begun_s)
            if wait_s <= 0:
                return True
            # A little longer than needed: records then leave in slices, and the client in batches.
            self._stop.wait(min(max(wait_s, SLICE_S), WAIT_MAX_S))
            self._events.check()
            self._on_progress(self.progress)
        return False

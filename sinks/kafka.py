"""The exactly-once Kafka sink: what is in a topic does not tell how often the flow was killed.

Sink partition i owns output partition i and one transactional id. When it resumes it fences off its predecessor, reads
what that one committed after the last snapshot, and drops records with those ids when the flow produces them again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from operators.kernels.codec import pack, unpack
from operators.reporting import reported
from sinks.records import EVENT_TIME_HEADER, ID_HEADER, OutputRecords
from sinks.tail import partition_bounds, read_tail, store_baseline, stored_baseline
from sources.clients import TAKEN_OVER, open_admin, reason, with_log
from sources.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_QUEUED_RECORDS: Final = 200_000
"""Most records that may wait for the producer of one partition; then the worker waits for it."""

EXPIRY_SNAPSHOTS: Final = 10
"""Snapshots that must pass after a resume before an id that did not come again is given up."""

_STATE_KIND: Final = "kafka-sink"
_STATE_VERSION: Final = 1
_ABORT_TIMEOUT_S: Final = 10.0
_FULL_WAIT_S: Final = 0.1

_Headers = list[tuple[str, str | bytes | None]]


@dataclass(slots=True)
class SinkCounts:
    """What a sink did since the process started.

    Attributes:
        written: Records in committed transactions.
        suppressed: Records that were there already and were dropped.
        expired: Ids found in the topic that the flow never produced again.
        transactions: Transactions committed.
    """

    written: int = 0
    suppressed: int = 0
    expired: int = 0
    transactions: int = 0

    def add(self, other: SinkCounts) -> None:
        """Add the counts of a partition."""
        self.written += other.written
        self.suppressed += other.suppressed
        self.expired += other.expired
        self.transactions += other.transactions


@dataclass(frozen=True, slots=True, eq=False)
class ExactlyOnceKafkaSink(FixedPartitionedSink[OutputRecords, bytes]):
    """Writes each record once to a topic, whatever crashes, restarts and replays happen between.

    Items are `(route, records)`; the number after the route's last `-`, modulo `partitions`, is the partition. It
    needs recovery with stale rows purged (`sources.recovery`), a fixed number of partitions, one flow for each topic,
    ids that are the same on replay, and output retained for longer than the flow is ever down.

    Attributes:
        client: Options in librdkafka's spelling, brokers included.
        flow: Name of the flow, the first part of transactional ids.
        topic: Output topic; it exists.
        partitions: How many of its partitions are written. A constant of the deployment.
        gather_s: How long a transaction gathers records before it is committed. A snapshot commits it at once, and
            with None nothing else does. With 0, those that arrive during a commit make the next transaction.
        headers: Headers that every record gets. Each costs 0.3 µs a record.
        expire_after_ms: Event time after which an id that did not come again is given up.
        transaction_timeout_ms: How long a transaction may be open, an epoch and its snapshot included.
    """

    client: Mapping[str, Any]
    flow: str
    topic: str
    partitions: int
    gather_s: float | None = 0.0
    headers: tuple[tuple[str, bytes], ...] = ()
    expire_after_ms: int = 3_600_000
    transaction_timeout_ms: int = 120_000
    _built: list[KafkaOutputPartition] = field(default_factory=list, repr=False)

    def list_parts(self) -> list[str]:
        """Name the partitions; names are padded so that their order is that of the numbers."""
        return [f"{index:05d}" for index in range(self.partitions)]

    def part_fn(self, item_key: str) -> int:
        """Choose the partition of a route, by its number."""
        return int(item_key.rpartition("-")[2])

    @reported
    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> KafkaOutputPartition:  # noqa: ARG002
        """Start a partition in the background; errors surface with its first use."""
        partition = KafkaOutputPartition(self, int(for_part), resume_state)
        self._built.append(partition)
        return partition

    def counts(self) -> SinkCounts:
        """Sum up what the partitions of this process did."""
        total = SinkCounts()
        for partition in self._built:
            total.add(partition.counts)
        return total


class KafkaOutputPartition(StatefulSinkPartition[OutputRecords, bytes]):
    """One output partition, and the only producer that may write to it.

    A thread of its own does everything that waits for the broker, so that the worker waits only in `snapshot`. Records
    are produced by the worker, unless the thread is at it: another core would have to fetch each of their parts.
    """

    def __init__(self, config: ExactlyOnceKafkaSink, index: int, resume_state: bytes | None) -> None:
        """Start fencing and reading the tail.

        Args:
            config: The sink.
            index: Number of the partition.
            resume_state: What `snapshot` returned; None when no snapshot was ever taken.

        Raises:
            StateError: The state is of another layout or damaged.
        """
        self.counts = SinkCounts()
        self._config = config
        self._index = index
        self._name = f"`{config.topic}` partition {index}"
        self._id = f"{config.flow}.{config.topic}.{index}"
        self._resume_offset = None if resume_state is None else self._offset_in(resume_state)
        self._queue: deque[OutputRecords] = deque()
        self._records_in = self._records_out = 0
        self._commit_waits = False
        self._hurry = threading.Event()
        self._turn = threading.Lock()  # held by whoever uses the producer
        self._in_transaction = 0
        self._end = 0
        self._clock_ms = 0
        self._snapshots = 0
        self._failure: OutputError | None = None
        self._delivery_error: KafkaError | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._id)
        self._opened = self._thread.submit(self._in_turn, self._open)

    @reported
    def write_batch(self, values: list[OutputRecords]) -> None:
        """Hand over records to be written, in order.

        Args:
            values: Frames of records; empty ones are allowed.

        Raises:
            OutputError: Something could not be written.
        """
        if self._failure is not None:
            raise self._failure
        self._queue.extend(values)
        self._records_in += sum(map(len, values))
        if self._opened.done() and self._turn.acquire(blocking=False):
            try:
                self._guarded(self._write)
            finally:
                self._turn.release()
        if self._config.gather_s is not None and not self._commit_waits:
            self._commit_waits = True
            self._thread.submit(self._gather)
        if self._records_in - self._records_out > MAX_QUEUED_RECORDS:
            self._finish()

    @reported
    def snapshot(self) -> bytes:
        """Wait until everything is committed.

        Returns:
            The offset from which a successor has to look for records of ours.

        Raises:
            OutputError: Something could not be written.
        """
        self._finish()
        self._snapshots += 1
        if self._tail.offsets and self._snapshots >= EXPIRY_SNAPSHOTS:
            self.counts.expired += self._tail.expire(self._clock_ms - self._config.expire_after_ms)
        first_open = self._tail.first_open()
        offset = max(self._end, self._tail.end) if first_open is None else first_open
        values = {"topic": self._config.topic, "partition": self._index, "next_offset": offset}
        return pack(_STATE_KIND, _STATE_VERSION, values, {})

    def close(self) -> None:
        """Abort what only a snapshot would commit, and disconnect."""
        self._hurry.set()
        self._thread.submit(self._in_turn, self._disconnect)
        self._thread.shutdown(wait=True)

    def _gather(self) -> None:
        """Commit when the transaction has gathered for long enough."""
        self._hurry.wait(self._config.gather_s)
        self._in_turn(self._write_and_commit)

    def _finish(self) -> None:
        """Have everything committed, and wait for it."""
        self._hurry.set()
        self._thread.submit(self._in_turn, self._write_and_commit).result()
        self._hurry.clear()

    def _in_turn(self, task: Callable[[], None]) -> None:
        """Run a task in the thread, when nobody else uses the producer."""
        with self._turn:
            self._guarded(task)

    def _guarded(self, task: Callable[[], None]) -> None:
        """Run a task, unless an earlier one failed: what comes after a failure must not be written.

        Raises:
            OutputError: Something could not be written.
        """
        if self._failure is not None:
            raise self._failure
        try:
            task()
        except OutputError as error:
            self._failure = error
            raise
        except KafkaException as error:
            self._failure = OutputError(self._explained(error))
            raise self._failure from error

    def _offset_in(self, state: bytes) -> int | None:
        """Read the offset out of a snapshot; None when the snapshot is of another topic, which a sink begins anew."""
        _, values, _ = unpack(_STATE_KIND, (_STATE_VERSION,), state)
        same = values["topic"] == self._config.topic and values["partition"] == self._index
        return int(values["next_offset"]) if same else None

    def _open(self) -> None:
        """Fence off the predecessor, then find out what it wrote."""
        config, topic, index = self._config, self._config.topic, self._index
        self._producer = Producer(self._producer_options())
        self._producer.init_transactions(config.transaction_timeout_ms / 1000)
        first, end = partition_bounds(config.client, self._id, topic, index)
        start = self._resume_offset
        if start is None:
            baseline = stored_baseline(config.client, self._id, topic, index)
            start = end if baseline is None else baseline
            # Stored again even if it is there: Kafka forgets the offsets of a group that nobody touches for a week.
            admin, _ = open_admin(config.client)
            store_baseline(admin, self._id, topic, index, start)
        self._tail = read_tail(config.client, self._id, topic, index, max(start, first), end)

    def _producer_options(self) -> dict[str, Any]:
        """Put together the producer's options: our defaults, the user's, and what exactly-once rests on."""
        defaults = {
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": MAX_QUEUED_RECORDS,
            "queue.buffering.max.kbytes": 65_536,
            "message.max.bytes": 64 * 1024 * 1024,
        }
        required = {
            "transactional.id": self._id,
            "transaction.timeout.ms": self._config.transaction_timeout_ms,
            "enable.idempotence": True,
            "acks": "all",
        }
        return with_log({**defaults, **self._config.client}, required)

    def _write(self) -> None:
        """Produce what has been queued."""
        while self._queue:
            frame = self._queue.popleft()
            self._records_out += len(frame)
            self._clock_ms = max(self._clock_ms, frame.expire_ms)
            if self._tail.offsets:
                frame = self._missing(frame)
            if len(frame):
                self._produce(frame)
        self._producer.poll(0)

    def _write_and_commit(self) -> None:
        """Produce what has been queued, and commit all that was produced since the last time."""
        self._commit_waits = False
        self._write()
        if self._in_transaction:
            self._commit()

    def _missing(self, frame: OutputRecords) -> OutputRecords:
        """Leave out the records that are in the topic already."""
        rows = [row for row, id_ in enumerate(frame.ids) if self._tail.offsets.pop(id_, None) is None]
        self.counts.suppressed += len(frame) - len(rows)
        return frame.take(rows)

    def _produce(self, frame: OutputRecords) -> None:
        """Put the records of a frame into the transaction."""
        if not self._in_transaction:
            self._producer.begin_transaction()
        self._in_transaction += len(frame)
        topic, index, same = self._config.topic, self._index, self._config.headers
        last = len(frame) - 1
        headers: _Headers
        callback = None
        # One record after the other, so that what is made for it is still in the cache when it is copied.
        for row, (key, value, id_) in enumerate(zip(frame.keys, frame.values, frame.ids, strict=True)):
            own = () if frame.headers is None else frame.headers[row]
            headers = [*own, *same, (ID_HEADER, id_)]
            if row == last:
                headers.append((EVENT_TIME_HEADER, b"%d" % frame.expire_ms))
                callback = self._delivered
            while True:
                try:
                    # By position, which takes two thirds of the time that keywords take.
                    self._producer.produce(topic, value, key, index, callback, None, 0, headers)
                    break
                except BufferError:
                    self._producer.poll(_FULL_WAIT_S)

    def _commit(self) -> None:
        """Commit the open transaction, asking again while the broker says that this may help."""
        deadline = time.monotonic() + self._config.transaction_timeout_ms / 1000
        while True:
            try:
                self._producer.commit_transaction(max(deadline - time.monotonic(), 0.1))
                break
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() >= deadline:
                    raise
        if self._delivery_error is not None:
            raise KafkaException(self._delivery_error)
        self.counts.written += self._in_transaction
        self.counts.transactions += 1
        self._in_transaction = 0

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        """Take the report on the last record of a frame; a failure of any record fails the transaction as well."""
        if error is None:
            self._end = max(self._end, (message.offset() or 0) + 1)
        else:
            self._delivery_error = error

    def _explained(self, error: KafkaException) -> str:
        """Say what a failure means, and leave no transaction open behind it."""
        if error.args[0].code() in TAKEN_OVER:
            return (
                f"{self._name} has been taken over by another producer with transactional id `{self._id}`: a second "
                f"instance of this flow is running, or this one stood still for too long; this one stops"
            )
        if self._in_transaction:
            with suppress(KafkaException):
                self._producer.abort_transaction(_ABORT_TIMEOUT_S)
        why = reason(KafkaException(self._delivery_error or error.args[0]), self._config.client)
        return f"{self._name} can't be written: {why}; the flow stops, and resumes from its last snapshot"

    def _disconnect(self) -> None:
        if self._in_transaction:
            self._producer.abort_transaction(_ABORT_TIMEOUT_S)
        self._producer.close()

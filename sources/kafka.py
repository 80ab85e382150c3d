"""The columnar Kafka source: few consumers for many partitions, frames of events, lateness in log order."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from operators.kernels.decode import Event, EventDecoder
from operators.kernels.intake import IntakeRules, joined, take
from operators.kernels.series import MAX_CODES, SeriesTable
from operators.kernels.watermarks import ACTIVE, ENDED, IDLE, Marks
from operators.reporting import reported
from sources import position
from sources.dead_letters import all_dead_letters, dead_letters
from sources.errors import SourceError
from sources.frame import KafkaFrame, Taken
from sources.position import Position, Snapshot
from sources.record import sort_out, timestamps_ms_of, values_of
from sources.topic import bounds_of, check_resumable, check_same, open_consumer, partitions_of
from sources.topic_watch import TopicWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from operators.kernels.decode import DecodeEvent
    from operators.kernels.intake import Intake
    from operators.vitals import Vitals
    from sources.record import Record

FRAME_ROWS: Final = 10_000
"""How many events a frame holds at most, unless a single record has more."""

READ_ROWS: Final = 1_000
"""How many events are read at a time: of ten thousand, the first has left the cache before the last is made."""

QUOTA_ROWS: Final = 4_000_000
"""How many events a source reads in one epoch: the only thing that keeps it from flooding another worker."""

FETCHING_REST_MS, SHORTEST_REST_MS, LONGEST_REST_MS = 2, 20, 120
"""How long a source rests at first: while the client may still fetch, at the end of the log; and at the most."""

BUSY_ROWS: Final = 10
"""How many events a read must bring for the next one to be soon."""

IDLE_ANSWER_S: Final = 1.0
"""How long a broker may take to confirm that a partition has nothing more."""

PREFETCH_KIB: Final = 32_768
"""How much the consumers of all sources may fetch ahead, together."""

LEAVE_TIMEOUT_S: Final = 5.0
"""How long the end of a flow waits for brokers to take the last offsets."""

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_LAG_EVERY_S: Final = 1.0
_LOG: Final = logging.getLogger(__name__)


Detail: TypeAlias = "Callable[[Sequence[Record], Intake], Any]"
"""Takes what a flow wants to know of events out of the records of one read and what became of them."""


@dataclass(frozen=True)
class KafkaEventSource(FixedPartitionedSource[KafkaFrame, bytes]):
    """Reads events from a topic with a fixed number of consumers.

    Partition p belongs to source p % `sources`, so that the number is a constant of the deployment.

    Attributes:
        client: How to reach the brokers, in librdkafka's spelling.
        topic: The topic with the events.
        group_id: Consumer group that snapshotted offsets are mirrored to, for lag tools; never read back.
        sources: Number of consumers.
        shards: Number of shards that services are spread over.
        rules: What is accepted.
        idle_after_ms: After how long a partition that brings nothing holds back no window.
        max_bytes: Largest record value that is looked into.
        stop_at_end: Whether to end at the offsets that are the end at the start.
        stopping: Tells that the job should end now.
        vitals: Where progress is noted.
        decode_event: How one JSON object becomes an event; None for the contract's own fields.
        event_type: What an event becomes when `decode_event` is None.
        detail: What a flow wants to know of events beyond the columns, taken from each read; None for nothing.
        paused: Tells that an output has enough to do, so that nothing should be read for now; None for never.
    """

    client: Mapping[str, Any]
    topic: str
    group_id: str
    sources: int
    shards: int
    rules: IntakeRules
    idle_after_ms: int
    max_bytes: int
    stop_at_end: bool
    stopping: Callable[[], bool]
    vitals: Vitals
    decode_event: DecodeEvent | None = field(default=None)
    event_type: type[Event] = field(default=Event)
    detail: Detail | None = field(default=None)
    paused: Callable[[], bool] | None = field(default=None)

    def list_parts(self) -> list[str]:
        """Name the sources."""
        return [f"source-{number:03d}" for number in range(self.sources)]

    @reported
    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> KafkaPartition:  # noqa: ARG002 - Bytewax's signature
        """Build one source, at its beginning or where a snapshot left it.

        Raises:
            SourceError: The topic can't be read, or no longer holds what the snapshot needs next.
            StateError: The snapshot can't be read.
        """
        snapshot = Snapshot({}) if resume_state is None else position.from_bytes(resume_state)
        return KafkaPartition(self, int(for_part.rpartition("-")[2]), snapshot)


class KafkaPartition(StatefulSourcePartition[KafkaFrame, bytes]):
    """One consumer with all partitions of a source."""

    def __init__(self, config: KafkaEventSource, number: int, snapshot: Snapshot) -> None:
        """Connect and go to the positions of a snapshot.

        Raises:
            SourceError: See `KafkaEventSource.build_part`.
        """
        self._config = config
        self._number = number
        self._name = f"source-{number:03d}"
        first = config.vitals.source_begins(self._name)
        everything = partitions_of(config.client, config.topic)
        self._watch = TopicWatch(config.client, config.topic, once=not first)
        check_same(config.topic, snapshot.topic_id, self._watch.topic_id)
        mine = [partition for partition in everything if partition % config.sources == number]
        self._positions = {number: snapshot.positions.get(number, Position()).at(mode=ACTIVE) for number in mine}
        self._newly_ended: list[int] = []
        self._consumer = open_consumer(config.client, config.group_id, PREFETCH_KIB // config.sources)
        self._ends = self._assign()
        self._decoder = EventDecoder(
            max_bytes=config.max_bytes, decode_event=config.decode_event, event_type=config.event_type
        )
        self._table = SeriesTable(config.shards)
        self._at_end: dict[int, int] = {}
        self._last_brought_s = dict.fromkeys(mine, time.monotonic())
        self._announced = False
        self._rows_in_epoch = 0
        self._rows_per_message = 1.0
        self._rest_ms = 0
        self._lag_at_s = 0.0
        self._to_mirror: list[TopicPartition] = []

    @reported
    def next_batch(self) -> list[KafkaFrame]:
        """Read what has come since the last call.

        Returns:
            At first one frame that tells of all partitions: a shard must know whom to wait for before it sees events.
            Then at most one for each partition, and one with the news of those that became idle or ended.

        Raises:
            StopIteration: The job should end, or everything up to the end has been read.
            SourceError: The log can't be read any further.
        """
        if self._config.stopping() or (self._config.stop_at_end and self._announced and self._all_ended()):
            raise StopIteration
        if not self._announced:
            self._announced = True
            self._newly_ended.clear()
            return [self._news_frame(list(self._positions))]
        self._mirror()
        if self._watch.check():
            self._config.vitals.cluster_answered()
        if self._rows_in_epoch >= QUOTA_ROWS or (self._config.paused is not None and self._config.paused()):
            self._rest_ms = LONGEST_REST_MS
            self._measure_lag()
            return []
        frames = self._read()
        news = [*self._fallen_idle(), *self._newly_ended]
        self._newly_ended.clear()
        if news:
            frames.append(self._news_frame(news))
        self._measure_lag()
        return frames

    def next_awake(self) -> datetime | None:
        """Rest until a moment at which other sources wake up as well: each time, the engine looks at every step."""
        if not self._rest_ms:
            return None
        rests = time.time_ns() // (self._rest_ms * 1_000_000) + 1
        return _EPOCH + timedelta(milliseconds=rests * self._rest_ms)

    def snapshot(self) -> bytes:
        """Give the positions as bytes, and let a new epoch begin."""
        self._rows_in_epoch = 0
        self._config.vitals.epoch_ended(self._name)
        self._to_mirror = [
            TopicPartition(self._config.topic, partition, place.offset)
            for partition, place in self._positions.items()
            if place.offset is not None
        ]
        return position.to_bytes(Snapshot(self._positions, self._watch.topic_id))

    def close(self) -> None:
        """Mirror the last offsets and leave; a broker that is away can't keep a flow from stopping."""
        self._mirror()
        # The client waits for its commits to be answered, however long that takes.
        leaving = threading.Thread(target=self._consumer.close, daemon=True)
        leaving.start()
        leaving.join(LEAVE_TIMEOUT_S)

    def _next_rest_ms(self, rows: int) -> int:
        """Choose how long to rest: a frame of a few events costs as much as one of hundreds."""
        fetching = len(self._at_end) < len(self._positions)
        if rows:
            return LONGEST_REST_MS if rows < BUSY_ROWS else 0 if fetching else SHORTEST_REST_MS
        return min(max(FETCHING_REST_MS if fetching else SHORTEST_REST_MS, 2 * self._rest_ms), LONGEST_REST_MS)

    def _assign(self) -> dict[int, int]:
        """Go to the positions and return where each partition ends now."""
        topic = self._config.topic
        bounds = bounds_of(self._consumer, topic, list(self._positions))
        for partition, place in self._positions.items():
            if place.offset is not None:
                check_resumable(topic, partition, place.offset, bounds[partition])
        assignment = [
            TopicPartition(topic, partition, OFFSET_BEGINNING if place.offset is None else place.offset)
            for partition, place in self._positions.items()
        ]
        self._consumer.assign(assignment)
        for partition, (low, high) in bounds.items():
            place = self._positions[partition]
            # Known from now on, so that it is noticed when retention passes what was never read.
            offset = low if place.offset is None else place.offset
            self._positions[partition] = place.at(offset=offset)
            if self._config.stop_at_end and offset >= high:
                self._end(partition, high)
        return {partition: high for partition, (_, high) in bounds.items()}

    def _read(self) -> list[KafkaFrame]:
        """Take in what has come, up to a frame, a little at a time."""
        if len(self._table) > MAX_CODES:
            self._table = SeriesTable(self._config.shards)
        before = dict(self._positions)
        taken: dict[int, list[Taken]] = {}
        rows = 0
        while rows < FRAME_ROWS:
            wanted = max(1, int(READ_ROWS / self._rows_per_message))
            messages = cast("list[Record]", self._consumer.consume(wanted, 0))
            batches, notices = sort_out(messages)
            for partition, batch in batches.items():
                kept = self._before_end(partition, batch)
                if kept:
                    part = self._take(partition, kept)
                    rows += part.rows
                    taken.setdefault(partition, []).append(part)
                self._reach(partition, batch[-1].offset() + 1)
            for notice in notices:
                self._heed(notice)
            if len(messages) < wanted:
                break
        self._rest_ms = self._next_rest_ms(rows)
        self._rows_in_epoch += rows
        return [self._frame(partition, before[partition], parts) for partition, parts in taken.items()]

    def _before_end(self, partition: int, batch: list[Record]) -> list[Record]:
        """Cut off what came after the end that was seen at the start."""
        end = self._ends[partition]
        if not self._config.stop_at_end or batch[-1].offset() < end:
            return batch
        return [message for message in batch if message.offset() < end]

    def _heed(self, notice: Record) -> None:
        """Note the end of a partition, or stop at an error that would lose events."""
        error = notice.error()
        if error is None:
            return
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own codes begin with an underscore
            if self._positions[notice.partition()].mode != ENDED:
                self._at_end[notice.partition()] = notice.offset()
            self._reach(notice.partition(), notice.offset())
        elif not error.retriable():
            raise SourceError(
                f"`{self._config.topic}` can't be read any further: {error.str()}; nothing was skipped, and a restart"
                " goes on where the last snapshot is"
            )

    def _reach(self, partition: int, offset: int) -> None:
        """Go on at an offset: that of the next record, or further on when transactions have left nothing to read."""
        place = self._positions[partition]
        if place.mode == ENDED:
            return
        if self._config.stop_at_end and offset >= self._ends[partition]:
            self._end(partition, self._ends[partition])
        else:
            self._positions[partition] = place.at(offset=max(place.offset or 0, offset))

    def _take(self, partition: int, batch: list[Record]) -> Taken:
        """Take in some records of one partition."""
        config, place = self._config, self._positions[partition]
        kafka_ms = timestamps_ms_of(batch)
        got = take(
            values_of(batch), kafka_ms, place.top_ms, rules=config.rules, table=self._table, decoder=self._decoder
        )
        rows = len(got.columns.code) + got.late + got.heartbeats + len(got.rejects)
        self._rows_per_message += 0.2 * (max(1.0, rows / len(batch)) - self._rows_per_message)
        self._last_brought_s[partition] = time.monotonic()
        self._at_end.pop(partition, None)
        self._positions[partition] = place.at(top_ms=got.top_ms, mode=ACTIVE)
        config.vitals.took(partition, got, kafka_ms[-1], config.rules.allowed_lateness_ms)
        dead = dead_letters(batch, got.rejects, got.top_ms) if got.rejects else None
        return Taken(got.columns, rows, dead, config.detail(batch, got) if config.detail else None)

    def _frame(self, partition: int, before: Position, parts: list[Taken]) -> KafkaFrame:
        """Make one frame of what was taken in of one partition."""
        columns = joined([part.columns for part in parts])
        dead = [part.dead for part in parts if part.dead is not None]
        return KafkaFrame(
            columns=columns,
            places=self._table.places(),
            sightings=self._table.untold(columns.code, columns.pane),
            news=self._progress(partition, before, self._positions[partition]),
            dead=all_dead_letters(dead) if dead else None,
            partition=partition,
            details=tuple(part.detail for part in parts if part.detail is not None),
        )

    def _progress(self, partition: int, before: Position, after: Position) -> Marks | None:
        """Tell the shards when a partition's event time crossed the end of a pane, or when it is no longer idle."""
        rules = self._config.rules
        if rules.frontier(after.top_ms) == rules.frontier(before.top_ms) and after.mode == before.mode:
            return None
        return self._marks([partition])

    def _marks(self, partitions: Sequence[int]) -> Marks:
        rules, places = self._config.rules, self._positions
        marks = tuple(places[partition].mark(partition, rules) for partition in partitions)
        return Marks(self._number, self._config.sources, marks)

    def _news_frame(self, partitions: Sequence[int]) -> KafkaFrame:
        return KafkaFrame(None, self._table.places(), None, self._marks(partitions), None)

    def _fallen_idle(self) -> list[int]:
        """Find the partitions that are idle from now on: long at their end, with nothing behind it.

        The broker is asked, once for each: a process that stood still, or was cut off, has not read what there is.
        """
        since_s = time.monotonic() - self._config.idle_after_ms / 1000
        active = [number for number in self._at_end if self._positions[number].mode == ACTIVE]
        quiet = [number for number in active if self._last_brought_s[number] < since_s]
        idle = []
        for partition in quiet if not self._config.stop_at_end else ():
            place = TopicPartition(self._config.topic, partition)
            try:
                _, high = self._consumer.get_watermark_offsets(place, timeout=IDLE_ANSWER_S)
            except KafkaException:
                # Producers may have been cut off as well: their time to bring something begins anew.
                self._last_brought_s.update(dict.fromkeys(quiet, time.monotonic()))
                break
            if high <= self._at_end[partition]:
                idle.append(partition)
                self._positions[partition] = self._positions[partition].at(mode=IDLE)
        return idle

    def _end(self, partition: int, end: int) -> None:
        """Read a partition no further than `end`."""
        self._positions[partition] = self._positions[partition].at(offset=end, mode=ENDED)
        self._newly_ended.append(partition)
        self._consumer.incremental_unassign([TopicPartition(self._config.topic, partition)])

    def _all_ended(self) -> bool:
        return all(place.mode == ENDED for place in self._positions.values())

    def _measure_lag(self) -> None:
        """Write down how far the log goes on, from what the last fetches told: no question is asked."""
        if time.monotonic() - self._lag_at_s < _LAG_EVERY_S:
            return
        self._lag_at_s = time.monotonic()
        for partition, place in self._positions.items():
            progress = self._config.vitals.partitions[partition]
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self._config.topic, partition), cached=True)
            progress.at_end = partition in self._at_end and high <= self._at_end[partition]
            if high >= 0 and place.offset is not None:
                progress.lag_events = 0 if progress.at_end else max(0, high - place.offset)

    def _mirror(self) -> None:
        """Commit the offsets of the last snapshot; Bytewax made it durable before it asked for this batch."""
        if self._to_mirror:
            offsets, self._to_mirror = self._to_mirror, []
            try:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                _LOG.warning("offsets were not mirrored to group `%s`: %s", self._config.group_id, error.args[0].str())

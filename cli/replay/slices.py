"""Slices of the past: the events of some stretch of event time, in the order of their partitions.

An event that was late is left out: it is in no window of the flow that heard it, and must not be in one now.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl

from cli.log_reader import LogReader
from operators.kernels.archive_rows import HOUR_MS, hour_name, items_of
from operators.kernels.decode import EventDecoder
from operators.kernels.intake import NO_TIME_MS, IntakeRules, take
from operators.kernels.mapping import mapped_decoder
from operators.kernels.series import MAX_CODES, SeriesTable
from sources.errors import SourceError
from sources.record import timestamps_ms_of, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flows.settings import Settings
    from operators.kernels.intake import Intake
    from sources.record import Record

_ROWS: Final = 10_000
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_CONTRACT: Final = (
    "timestamp_ms", "service", "endpoint", "latency_ms", "status", "event_id", "trace_id", "region", "host", "method"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Past:
    """An event as it is put into a log once more.

    Attributes:
        partition: Where it was, and goes.
        key: Key of its record.
        value: The event alone, as it was sent.
        headers: Headers of its record.
        kafka_ms: Kafka timestamp of its record; its own time where that is not known.
    """

    partition: int
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    kafka_ms: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of event time.

    Attributes:
        from_ms: Its beginning, inclusive.
        to_ms: Its end, exclusive.
    """

    from_ms: int
    to_ms: int


def from_topic(settings: Settings, span: Span, progress: Callable[[int, int], None]) -> Iterator[list[Past]]:
    """Read a slice of the topic of events.

    Args:
        settings: Where it is, and how events are read.
        span: The slice.
        progress: Told how many records were read, of how many there are.

    Yields:
        Events of one partition.

    Raises:
        FlowError: The topic can't be read.
    """
    events, window = settings.events, settings.window
    rules = IntakeRules(window.slide_ms, window.allowed_lateness_ms, events.max_future_ms)
    reader = LogReader(settings.client(), settings.kafka.topics.events)
    try:
        # No record before these can hold an event of the slice, or one that would make an event of the slice late.
        starts = reader.offsets_at(span.from_ms - events.max_future_ms)
        total = sum(max(0, high - max(low, starts[number])) for number, (low, high) in reader.bounds.items())
        decoder = EventDecoder(
            max_bytes=events.max_bytes,
            decode_event=mapped_decoder(events.fields, events.timestamp_unit, events.latency_unit),
        )
        table, tops_ms, read = SeriesTable(window.shards), dict.fromkeys(reader.bounds, NO_TIME_MS), 0
        for partition, records in reader.read(starts):
            if len(table) > MAX_CODES:
                table = SeriesTable(window.shards)
            values, stamps_ms = values_of(records), timestamps_ms_of(records)
            got = take(values, stamps_ms, tops_ms[partition], rules=rules, table=table, decoder=decoder)
            tops_ms[partition] = got.top_ms
            yield _chosen(records, values, got, span)
            if rules.frontier(got.top_ms) * rules.slide_ms >= span.to_ms:
                # Whatever of the slice is still to come is late.
                reader.leave(partition)
            read += len(records)
            progress(read, total)
    finally:
        reader.close()


def _chosen(records: Sequence[Record], values: Sequence[bytes | None], got: Intake, span: Span) -> list[Past]:
    stamps = np.fromiter((event.timestamp_ms for event in got.decoded.events), np.int64, len(got.decoded.events))
    rows = np.flatnonzero(got.accepted & (stamps >= span.from_ms) & (stamps < span.to_ms)).tolist()
    chosen = []
    for row, index, _, text in zip(rows, *items_of(values, got, rows), strict=True):
        record = records[index]
        stamp_ms = record.timestamp()[1]
        kafka_ms = stamp_ms if stamp_ms >= 0 else int(stamps[row])
        chosen.append(Past(record.partition(), record.key(), text, record.headers() or (), kafka_ms))
    return chosen


def from_archive(settings: Settings, span: Span, progress: Callable[[int, int], None]) -> Iterator[list[Past]]:
    """Read a slice of the archive.

    Args:
        settings: Where it is.
        span: The slice.
        progress: Told how many events were read, of how many there are.

    Yields:
        Events of one partition, in the contract's names and units.

    Raises:
        SourceError: There is no archive, or nothing in it.
    """
    path = Path(settings.archive.path)
    if next(path.glob("hour=*/shard=*/*.parquet"), None) is None:
        raise SourceError(f"archive {path} has no files; let flows.archive run, or read the topic with --source topic")
    hours = (pl.lit(hour_name(span.from_ms // HOUR_MS)), pl.lit(hour_name((span.to_ms - 1) // HOUR_MS)))
    inside = pl.col("timestamp_ms").is_between(span.from_ms, span.to_ms, closed="left") & ~pl.col("late")
    rows = pl.scan_parquet(path, hive_partitioning=True).filter(pl.col("hour").is_between(*hours) & inside)
    counts = rows.group_by("partition").len().sort("partition").collect()
    total, read = int(counts["len"].sum()), 0
    for partition in counts["partition"].to_list():
        of_one = rows.filter(pl.col("partition") == partition).drop("hour", "shard").sort("offset", "item").collect()
        for part in of_one.iter_slices(_ROWS):
            yield [_rebuilt(row) for row in part.iter_rows(named=True)]
            read += len(part)
            progress(read, total)


def as_archived(settings: Settings) -> dict[str, str]:
    """Name the settings with which a flow reads events of the archive: nothing is mapped any more.

    Args:
        settings: Those that events were archived with.

    Returns:
        Variables that undo the mapping.
    """
    fields = {f"TAILMARK_EVENTS__FIELDS__{name.upper()}": name for name in settings.events.fields}
    return {**fields, "TAILMARK_EVENTS__TIMESTAMP_UNIT": "ms", "TAILMARK_EVENTS__LATENCY_UNIT": "ms"}


def _rebuilt(row: Mapping[str, Any]) -> Past:
    """Put an event together from its row."""
    extra = {} if row["extra"] is None else _FIELDS(row["extra"].encode())
    event = {**extra, **{name: row[name] for name in _CONTRACT if row[name] is not None}}
    kafka_ms = row["timestamp_ms"] if row["kafka_timestamp_ms"] is None else row["kafka_timestamp_ms"]
    return Past(row["partition"], row["service"].encode(), msgspec.json.encode(event), (), kafka_ms)

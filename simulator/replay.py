"""Recorded traffic as chunks: NDJSON, Parquet, nginx and Envoy access logs."""

from __future__ import annotations

import gzip
import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import numpy as np
import polars as pl

from simulator.access_log import PARSERS
from simulator.encode import CONTENTS, Records, partition_of, with_heartbeats
from simulator.stream import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from polars._typing import EpochTimeUnit
    from polars.expr.datetime import ExprDateTimeNameSpace

FORMATS: Final = ("ndjson", "parquet", *PARSERS)

CHUNK_LINES: Final = 2000
GAP_MAX_MS: Final = 600_000
"""Where recorded time jumps by more, no heartbeats are written: a night without traffic would be nothing but them."""

_SNIFF_LINES: Final = 20
_PARQUET_ROWS: Final = 50_000
_YEAR_2000_MS: Final = 946_684_800_000
_YEAR_2100_MS: Final = 4_102_444_800_000
_MS_PER_UNIT: Final = {"ms": 1.0, "s": 1000.0, "us": 1e-3, "ns": 1e-6}
_PARQUET_MAGIC: Final = b"PAR1"
_GZIP_MAGIC: Final = b"\x1f\x8b"


class ReplayError(Exception):
    """The file can't be replayed; the message is one line for the person who started the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where an event has its time and its service, as in the settings of the flows.

    Attributes:
        fields: The key that a field has in recorded JSON, where it differs; dots reach into objects.
        timestamp_unit: `ms`, `s`, `us`, `ns` or `iso`.
        service: Service of access-log lines; None: what the line says.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    timestamp_unit: str = "ms"
    service: str | None = None

    def find(self, event: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - it is whatever was recorded
        """Give the value of a field, None when the event has none."""
        value: Any = event
        for key in self.fields.get(name, name).split("."):
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    def time_ms(self, event: Mapping[str, Any]) -> int:
        """Give the time of an event.

        Raises:
            ValueError: It has none, or one outside this century.
        """
        value = self.find(event, "timestamp_ms")
        if self.timestamp_unit == "iso" and isinstance(value, str):
            value = _iso_ms(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            value *= _MS_PER_UNIT.get(self.timestamp_unit, 1.0)
        else:
            raise ValueError("no timestamp")
        if not _YEAR_2000_MS <= value < _YEAR_2100_MS:
            raise ValueError("timestamp outside this century")
        return int(value)


@dataclass(slots=True)
class Bad:
    """The lines that could not be replayed.

    Attributes:
        reasons: How many, by reason.
        first: Number of the first line with that reason, from 1.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, line: int) -> None:
        """Count one."""
        self.reasons[reason] += 1
        self.first.setdefault(reason, line)

    def __str__(self) -> str:
        """Say in one line what was bad; empty when nothing was."""
        if not self.reasons:
            return ""
        parts = (
            f"{count:,} {reason} (first: line {self.first[reason]})" for reason, count in self.reasons.most_common()
        )
        return f"{self.reasons.total():,} bad lines left out: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class _Line:
    """One value to publish: its time, its service, its bytes, the number of events in it."""

    time_ms: int
    service: str
    value: bytes
    events: int = 1


def sniff(path: Path) -> str:
    """Recognise the format of a file.

    Args:
        path: A file, gzipped or not, or a directory of Parquet files.

    Returns:
        One of `FORMATS`.

    Raises:
        ReplayError: It can't be read, or it is none of them.
    """
    try:
        if path.is_dir():
            if any(path.rglob("*.parquet")):
                return "parquet"
            raise ReplayError(f"{path} is a directory without any .parquet file")
        with path.open("rb") as file:
            if file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC:
                return "parquet"
        lines = [line for line in itertools.islice(_lines(path), _SNIFF_LINES) if line.strip()]
    except OSError as error:
        raise ReplayError(f"can't read {path}: {error.strerror or error}") from error
    complaint = ""
    for line in lines:
        if line.lstrip()[:1] == b"{" or line.lstrip()[:2] == b"[{":
            return "ndjson"
        for name, parse in PARSERS.items():
            try:
                parse(line.decode(errors="replace").strip(), None)
            except ValueError as error:
                complaint = str(error) if "request time" in str(error) else complaint
            else:
                return name
    reason = complaint or f"its first lines are none of {', '.join(FORMATS)}"
    raise ReplayError(f"unknown format of {path}: {reason}; choose one with --format")


def replay(path: Path, kind: str, *, layout: Layout, partitions: int, heartbeat_ms: int, bad: Bad) -> Iterator[Chunk]:
    """Read recorded traffic as chunks in the order of the file.

    Values of NDJSON stay byte for byte what they are, one line each, be it an event or an array of events. A record
    arrives with the latest time seen so far, so recorded disorder stays disorder.

    Args:
        path: What to read.
        kind: One of `FORMATS`.
        layout: Where an event has its time and its service.
        partitions: Number of partitions of the events topic.
        heartbeat_ms: Event time between heartbeats; 0: none.
        bad: Counts the lines that are left out.

    Yields:
        Chunks in order of arrival, heartbeats included.

    Raises:
        ReplayError: The file can't be read.
    """
    readers = {"ndjson": _ndjson, "parquet": _parquet}
    reader = readers.get(kind)
    lines = reader(path, layout, bad) if reader else _access_log(path, kind, layout, bad)
    reached_ms = beat_ms = -1
    batch: list[_Line] = []
    arrivals: list[int] = []
    try:
        for line in lines:
            gap = reached_ms >= 0 and line.time_ms - reached_ms > GAP_MAX_MS
            if len(batch) >= CHUNK_LINES or (gap and batch):
                yield _chunk(batch, arrivals, beat_ms, partitions, heartbeat_ms)
                beat_ms = reached_ms + 1
                batch, arrivals = [], []
            if gap or beat_ms < 0:
                beat_ms = line.time_ms
            reached_ms = max(reached_ms, line.time_ms)
            batch.append(line)
            arrivals.append(reached_ms)
    except (OSError, EOFError, pl.exceptions.PolarsError) as error:
        raise ReplayError(f"can't read {path}: {error}") from error
    if batch:
        yield _chunk(batch, arrivals, beat_ms, partitions, heartbeat_ms)


def _chunk(lines: list[_Line], arrivals: list[int], beat_ms: int, partitions: int, heartbeat_ms: int) -> Chunk:
    """Make a chunk of lines, with the heartbeats due between `beat_ms` and its last arrival."""
    keys: list[bytes | None] = [line.service.encode() for line in lines]
    contents = np.zeros((len(lines), len(CONTENTS)), dtype=np.int32)
    contents[:, CONTENTS.index("events")] = [line.events for line in lines]
    records = Records(
        values=[line.value for line in lines],
        keys=keys,
        partitions=[partition_of(key or b"", partitions) for key in keys],
        arrival_ms=arrivals,
        contents=contents,
    )
    records = with_heartbeats(records, beat_ms, arrivals[-1] + 1, heartbeat_ms, partitions)
    return Chunk(arrivals[0], Records(), records)


def _lines(path: Path) -> Iterator[bytes]:
    """Read the lines of a file, gzipped or not."""
    with path.open("rb") as raw:
        zipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        raw.seek(0)
        if zipped:
            with gzip.open(raw) as file:
                yield from file
        else:
            yield from raw


def _ndjson(path: Path, layout: Layout, bad: Bad) -> Iterator[_Line]:
    """Read events, one or an array of them in each line; recorded heartbeats are left out, new ones are made."""
    decode = msgspec.json.Decoder().decode
    for number, raw in enumerate(_lines(path), start=1):
        value = raw.strip()
        if not value:
            continue
        try:
            content = decode(value)
            events = content if isinstance(content, list) else [content]
            if not events or not all(isinstance(event, dict) for event in events):
                raise ValueError("no event")  # noqa: TRY301 - one place counts whatever is wrong with a line
            if layout.find(events[0], "heartbeat") is True:
                continue
            time_ms = max(layout.time_ms(event) for event in events)
            yield _Line(time_ms, _service(events[0], layout), value, len(events))
        except (msgspec.DecodeError, RecursionError):
            bad.add("not JSON", number)
        except ValueError as error:
            bad.add(str(error), number)


def _parquet(path: Path, layout: Layout, bad: Bad) -> Iterator[_Line]:
    """Read rows as events; nulls are left out, a column of timestamps becomes milliseconds."""
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    encode = msgspec.json.Encoder().encode
    number = 0
    for file in files:
        frame = pl.scan_parquet(file, hive_partitioning=False)
        schema = frame.collect_schema()
        column = layout.fields.get("timestamp_ms", "timestamp_ms")
        missing = {column.split(".")[0], layout.fields.get("service", "service").split(".")[0]} - set(schema.names())
        if missing:
            raise ReplayError(f"{file} has no column {', '.join(sorted(missing))}; name yours in EVENTS__FIELDS")
        if isinstance(schema.get(column), pl.Datetime):
            frame = frame.with_columns(_in_unit(pl.col(column).dt, layout.timestamp_unit))
        rows = frame.select(pl.len()).collect().item()
        for offset in range(0, rows, _PARQUET_ROWS):
            for row in frame.slice(offset, _PARQUET_ROWS).collect().iter_rows(named=True):
                number += 1
                event = {name: value for name, value in row.items() if value is not None}
                try:
                    yield _Line(layout.time_ms(event), _service(event, layout), encode(event))
                except (ValueError, TypeError) as error:
                    bad.add(str(error), number)


def _in_unit(times: ExprDateTimeNameSpace, unit: str) -> pl.Expr:
    """Turn timestamps into what the flows are set to read."""
    return times.strftime("%Y-%m-%dT%H:%M:%S%.3fZ") if unit == "iso" else times.epoch(cast("EpochTimeUnit", unit))


def _iso_ms(text: str) -> float:
    """Read an ISO 8601 time.

    Raises:
        ValueError: It is none; the message is the same for all, since lines are counted by it.
    """
    try:
        return datetime.fromisoformat(text).timestamp() * 1000
    except ValueError:
        raise ValueError("timestamp is not ISO 8601") from None


def _access_log(path: Path, kind: str, layout: Layout, bad: Bad) -> Iterator[_Line]:
    """Read the lines of an access log as events."""
    parse = PARSERS[kind]
    encode = msgspec.json.Encoder().encode
    for number, raw in enumerate(_lines(path), start=1):
        text = raw.decode(errors="replace").strip()
        if not text:
            continue
        try:
            event = parse(text, layout.service)
        except ValueError as error:
            bad.add(str(error), number)
        else:
            yield _Line(event["timestamp_ms"], event["service"], encode(event))


def _service(event: Mapping[str, Any], layout: Layout) -> str:
    """Give the service of an event.

    Raises:
        ValueError: It has none.
    """
    service = layout.find(event, "service")
    if not isinstance(service, str) or not service:
        raise ValueError("no service")
    return service


def first_time_ms(path: Path, kind: str, layout: Layout) -> int:
    """Give the event time at which a recording begins: that of its first good line.

    Raises:
        ReplayError: It has none.
    """
    for chunk in replay(path, kind, layout=layout, partitions=1, heartbeat_ms=0, bad=Bad()):
        return chunk.records.arrival_ms[0]
    raise ReplayError(f"{path} has no line that is an event; the format was taken for {kind}, choose with --format")

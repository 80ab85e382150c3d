"""Rows of the archive: every valid event as it was sent, late or not, with the place in the log that identifies it."""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import numpy as np
import polars as pl

from operators.kernels.decode import TracedEvent, split_items
from operators.kernels.series import shard_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from operators.kernels.intake import Intake

HOUR_MS: Final = 3_600_000

SCHEMA: Final[dict[str, type[pl.DataType]]] = {
    "timestamp_ms": pl.Int64,
    "service": pl.String,
    "endpoint": pl.String,
    "latency_ms": pl.Float64,
    "status": pl.Int16,
    "event_id": pl.String,
    "trace_id": pl.String,
    "region": pl.String,
    "host": pl.String,
    "method": pl.String,
    "extra": pl.String,
    "late": pl.Boolean,
    "kafka_timestamp_ms": pl.Int64,
    "partition": pl.Int32,
    "offset": pl.Int64,
    "item": pl.Int32,
}
"""Columns of every file. `partition`, `offset` and `item` identify a row; `item` is 0 where a record is one event."""

NO_ROWS: Final = pl.DataFrame(schema=SCHEMA)

_MEASURED: Final = ("timestamp_ms", "service", "endpoint", "latency_ms", "status")
_TEXTS: Final = ("event_id", "trace_id", "region", "host", "method")
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TEXT_OR_NONE: Final = frozenset({str, type(None)})
_ENCODE: Final = msgspec.json.encode


class ArchivedEvent(TracedEvent, gc=False):
    """An event with all that has a column of its own; of any type, None without."""

    region: Any = None
    host: Any = None
    method: Any = None


class CopiedKeys:
    """The keys of an event that are in a column as they were sent, so that `extra` need not hold them again.

    A key that is only reached through objects is not among them: its object stays whole. Nor is the key of a value that
    is converted: it stays in its own unit.

    Attributes:
        columns: Column by key.
    """

    def __init__(self, fields: Mapping[str, str], timestamp_unit: str, latency_unit: str) -> None:
        """Work them out.

        Args:
            fields: For a field of the contract the key that it has in the producer's JSON.
            timestamp_unit: Unit of the timestamp.
            latency_unit: Unit of the latency.
        """
        converted = {"timestamp_ms"} if timestamp_unit != "ms" else set()
        converted |= {"latency_ms"} if latency_unit != "ms" else set()
        names = (name for name in (*_MEASURED, *_TEXTS) if name not in converted)
        self.columns = {fields.get(name, name): name for name in names}
        absent = msgspec.Raw(b"")
        members = [
            (f"key_{number}", msgspec.Raw, msgspec.field(default=absent, name=key))
            for number, key in enumerate(self.columns)
        ]
        event = msgspec.defstruct("CopiedKeysOnly", members, forbid_unknown_fields=True, gc=False)
        self._decode = msgspec.json.Decoder(event).decode

    def are_all(self, texts: Sequence[bytes]) -> bool:
        """Tell whether events have no other keys; it costs a third of what looking for them does."""
        try:
            deque(map(self._decode, texts), maxlen=0)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


def archive_rows(
    values: Sequence[bytes | None],
    offsets: Sequence[int],
    kafka_ms: Sequence[int],
    partition: int,
    intake: Intake,
    *,
    copied: CopiedKeys,
) -> pl.DataFrame | None:
    """Make rows of what one read of one partition brought.

    Args:
        values: Record values, in log order.
        offsets: Offset of each record.
        kafka_ms: Timestamp of each record; negative where the broker has none.
        partition: Partition of the topic.
        intake: What became of them; its events are `ArchivedEvent`.
        copied: Keys that are in a column already.

    Returns:
        One row for each accepted or late event, in log order, with the columns of `SCHEMA`; None without any.
    """
    kept = np.flatnonzero(intake.accepted | intake.tardy)
    if not len(kept):
        return None
    events = [intake.decoded.events[row] for row in kept.tolist()]
    records, items, texts = items_of(values, intake, kept.tolist())
    stamps = np.asarray(kafka_ms, np.int64)[records]
    rows: dict[str, Any] = {name: list(map(attrgetter(name), events)) for name in (*_MEASURED, *_TEXTS)}
    rows["extra"] = _extra(texts, rows, copied)
    rows["late"] = intake.tardy[kept]
    rows["kafka_timestamp_ms"] = [None if stamp < 0 else stamp for stamp in stamps.tolist()]
    rows["partition"] = np.full(len(kept), partition, np.int32)
    rows["offset"] = np.asarray(offsets, np.int64)[records]
    rows["item"] = items
    return pl.DataFrame(rows, schema=SCHEMA)


def filed(rows: pl.DataFrame, shards: int) -> Iterator[tuple[str, pl.DataFrame]]:
    """Split rows by the folder that they belong to.

    Args:
        rows: With the columns of `SCHEMA`.
        shards: Number of shards, a constant of the archive.

    Yields:
        Folder, such as `hour=2026-11-23T09/shard=03`, and its rows in their order.
    """
    services = rows["service"].unique()
    shard = {service: shard_of(service, shards) for service in services}
    placed = rows.with_columns(
        (pl.col("timestamp_ms") // HOUR_MS).alias("_hour"),
        pl.col("service").replace_strict(shard, return_dtype=pl.Int64).alias("_shard"),
    )
    parts = placed.partition_by("_hour", "_shard", as_dict=True, include_key=False, maintain_order=True)
    for (hour, number), part in sorted(cast("dict[tuple[int, int], pl.DataFrame]", parts).items()):
        yield f"hour={hour_name(hour)}/shard={number:02d}", part


def hour_name(hour: int) -> str:
    """Name an hour.

    Args:
        hour: Hours since the epoch; of any year.

    Returns:
        `2026-11-23T09`, UTC.
    """
    return str(np.datetime64(hour, "h"))


def items_of(
    values: Sequence[bytes | None], intake: Intake, kept: Sequence[int]
) -> tuple[list[int], list[int], list[bytes]]:
    """Find what events were made of.

    Args:
        values: Record values, in log order.
        intake: What became of them.
        kept: Indices of decoded events, ascending.

    Returns:
        For each of them: index of its record, number of the item in the record (0 where the record is one event), and
        the bytes of the item.
    """
    counts = intake.decoded.counts
    if counts is None:
        return list(kept), [0] * len(kept), [values[row] or b"" for row in kept]
    record_of = np.repeat(np.arange(len(values)), counts).tolist()
    first = (np.cumsum(counts) - counts).tolist()
    gone: dict[int, set[int | None]] = {}
    for reject in intake.decoded.rejects:
        gone.setdefault(reject.record, set()).add(reject.item)
    split: dict[int, list[tuple[int, bytes]]] = {}
    records, items, texts = [], [], []
    for row in kept:
        record = record_of[row]
        if record not in split:
            split[record] = _good_items(values[record] or b"", gone.get(record, set()))
        item, text = split[record][row - first[record]]
        records.append(record)
        items.append(item)
        texts.append(text)
    return records, items, texts


def _good_items(value: bytes, gone: set[int | None]) -> list[tuple[int, bytes]]:
    items = split_items(value)
    if items is None:
        return [(0, value)]
    return [(number, item) for number, item in enumerate(items) if number not in gone]


def _extra(texts: Sequence[bytes], rows: dict[str, list[Any]], copied: CopiedKeys) -> list[str | None]:
    """Make the column of what has no column of its own, every value byte by byte as it was sent.

    Args:
        texts: Each event.
        rows: The other columns; what is no text is taken out of those of texts, and stays in this one.
        copied: Keys that are in a column already.
    """
    odd: dict[int, set[str]] = {}
    for name in _TEXTS:
        column = rows[name]
        if _TEXT_OR_NONE.issuperset(map(type, column)):
            continue
        for row, value in enumerate(column):
            if value is not None and type(value) is not str:
                column[row] = None
                odd.setdefault(row, set()).add(name)
    if not odd and copied.are_all(texts):
        return [None] * len(texts)
    known = copied.columns.keys()
    extra: list[str | None] = []
    for row, text in enumerate(texts):
        drop = {key for key, name in copied.columns.items() if name not in odd[row]} if row in odd else known
        rest = {key: raw for key, raw in _fields_of(text).items() if key not in drop}
        extra.append(_ENCODE(rest).decode() if rest else None)
    return extra


def _fields_of(text: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _FIELDS(text)
    except (msgspec.DecodeError, RecursionError):
        # The decoder of events passes over what it does not know without looking into it.
        return {"": msgspec.Raw(_ENCODE(text.decode()))}

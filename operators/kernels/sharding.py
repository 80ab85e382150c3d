"""Pre-aggregation of events and their split by shard, before they are exchanged between workers.

Everything that leaves here is integers that add up (or a maximum), so the order in which a shard receives it does not
matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.buckets import BUCKET_BITS, BUCKET_MASK, bucket_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.intake import EventColumns
    from operators.kernels.series import Places

_ROW_BITS: Final = 15
_PANE_BITS: Final = 16
MAX_ROWS: Final = 1 << _ROW_BITS
"""Most events that are aggregated at once: the row number shares a 64-bit sort key with series, pane and bucket."""

_ROW_MASK: Final = MAX_ROWS - 1
_PANE_SHIFT: Final = BUCKET_BITS + _ROW_BITS
_CODE_SHIFT: Final = _PANE_SHIFT + _PANE_BITS
_CODE_BITS: Final = 63 - _CODE_SHIFT

SERIES, PANE, COUNT, ERRORS, SUM_US, MAX_US = range(6)
"""Rows of `PaneRows.totals`."""


@dataclass(frozen=True, slots=True)
class PaneRows:
    """Pre-aggregated events of one shard.

    Attributes:
        series: (service, endpoint) of each series that the source has seen in this shard. All rows of a source and
            shard share one list, which only grows.
        totals: Shape (6, t), int64: series (index into `series`), pane, count, errors, sum in µs, maximum in µs; one
            column for each series and pane.
        buckets: Shape (3, b), int64: column of `totals`, bucket code, count.
    """

    series: list[tuple[str, str]]
    totals: NDArray[np.int64]
    buckets: NDArray[np.int64]

    @property
    def requests(self) -> int:
        """How many events there are."""
        return int(self.totals[COUNT].sum())

    def __reduce__(self) -> tuple[type[PaneRows], tuple[list[tuple[str, str]], NDArray[np.int64], NDArray[np.int64]]]:
        """Take along to another process only the series that are in the rows."""
        used, index = np.unique(self.totals[SERIES], return_inverse=True)
        totals = self.totals.copy()
        totals[SERIES] = index
        return PaneRows, ([self.series[number] for number in used.tolist()], totals, self.buckets)


def split_by_shard(columns: EventColumns, places: Places) -> list[tuple[int, PaneRows]]:
    """Aggregate events by series, pane and bucket, and split the result by shard.

    Args:
        columns: Any number of events, in any order.
        places: Where their series codes belong.

    Returns:
        (shard, rows) for each shard that has any, in the order of shards; once more for every `MAX_ROWS` events, and
        for panes that are too far apart to be sorted together.
    """
    if not len(columns.code):
        return []
    if len(columns.code) > MAX_ROWS:
        cuts = range(0, len(columns.code), MAX_ROWS)
        pieces = (columns.where(slice(start, start + MAX_ROWS)) for start in cuts)
        return [part for piece in pieces for part in split_by_shard(piece, places)]
    if int(columns.code.max()) >> _CODE_BITS:
        codes, renumbered = np.unique(columns.code, return_inverse=True)
        fewer = replace(places, shard=places.shard[codes], number=places.number[codes])
        return split_by_shard(replace(columns, code=renumbered), fewer)
    first_pane = int(columns.pane.min())
    if int(columns.pane.max()) - first_pane >= 1 << _PANE_BITS:
        return _split_halves(columns, places)
    row = np.arange(len(columns.code))
    key = (columns.code << _CODE_SHIFT) | ((columns.pane - first_pane) << _PANE_SHIFT)
    key |= (bucket_of(columns.latency_us) << _ROW_BITS) | row
    # Sorting packed integers is several times faster than sorting row numbers by key.
    key.sort()
    row = key & _ROW_MASK
    key >>= _ROW_BITS
    starts = _group_starts(key)
    bucket_key = key[starts]
    bucket_count = np.diff(starts, append=len(key))
    total_of_bucket_key = bucket_key >> BUCKET_BITS
    total_starts = _group_starts(total_of_bucket_key)
    total_key = total_of_bucket_key[total_starts]
    first_row = starts[total_starts]
    latency_us = columns.latency_us[row]
    totals = np.empty((6, len(total_key)), np.int64)
    totals[SERIES] = total_key >> _PANE_BITS
    totals[PANE] = (total_key & ((1 << _PANE_BITS) - 1)) + first_pane
    totals[COUNT] = np.diff(first_row, append=len(key))
    totals[ERRORS] = np.add.reduceat(columns.error[row].astype(np.int64), first_row)
    totals[SUM_US] = np.add.reduceat(latency_us, first_row)
    totals[MAX_US] = np.maximum.reduceat(latency_us, first_row)
    per_total = np.diff(total_starts, append=len(bucket_key))
    return _slice_shards(totals, per_total, bucket_key & BUCKET_MASK, bucket_count, places)


def _group_starts(keys: NDArray[np.int64]) -> NDArray[np.intp]:
    """Give the positions at which a new value begins in sorted keys that are not empty."""
    return np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))


def _slice_shards(
    totals: NDArray[np.int64],
    per_total: NDArray[np.int64],
    bucket: NDArray[np.int64],
    bucket_count: NDArray[np.int64],
    places: Places,
) -> list[tuple[int, PaneRows]]:
    """Order aggregated rows by shard and cut them up; `per_total` counts the bucket rows of each total."""
    shard = places.shard[totals[SERIES]]
    totals[SERIES] = places.number[totals[SERIES]]
    order = np.argsort(shard.astype(np.int16), kind="stable")
    # The bucket rows of a total are contiguous and follow it when totals are reordered.
    sizes = per_total[order]
    first_bucket = np.cumsum(per_total) - per_total
    ends = np.cumsum(sizes)
    source = np.arange(ends[-1]) + np.repeat(first_bucket[order] - (ends - sizes), sizes)
    totals = totals[:, order]
    buckets = np.empty((3, len(bucket)), np.int64)
    buckets[1] = bucket[source]
    buckets[2] = bucket_count[source]
    shard = shard[order]
    cuts = _group_starts(shard)
    stops = np.append(cuts[1:], len(shard))
    buckets[0] = np.repeat(np.arange(len(shard)) - np.repeat(cuts, stops - cuts), sizes)
    bucket_stops = ends[stops - 1].tolist()
    result = []
    bucket_start = 0
    for begin, stop, bucket_stop in zip(cuts.tolist(), stops.tolist(), bucket_stops, strict=True):
        of_shard = int(shard[begin])
        rows = PaneRows(places.series[of_shard], totals[:, begin:stop], buckets[:, bucket_start:bucket_stop])
        result.append((of_shard, rows))
        bucket_start = bucket_stop
    return result


def _split_halves(columns: EventColumns, places: Places) -> list[tuple[int, PaneRows]]:
    """Split events whose panes are too far apart for one sort key at the middle of their range."""
    middle = (int(columns.pane.min()) + int(columns.pane.max()) + 1) // 2
    early = columns.pane < middle
    return [part for side in (early, ~early) for part in split_by_shard(columns.where(side), places)]

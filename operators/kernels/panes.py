"""Panes: slide-long slices of event time, kept sparse so that memory follows the traffic.

A pane never has more entries than it had events. Rows are appended as they come and merged by sorting now and then, so
the cost of a row does not depend on how many series or panes there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.buckets import BUCKET_BITS, BUCKET_MASK
from operators.kernels.sharding import COUNT, MAX_US, PANE, SERIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from operators.kernels.sharding import PaneRows
    from operators.kernels.slots import Slots

MAX_PENDING_ROWS: Final = 1 << 16
"""How many appended bucket rows wait before they are merged."""

_EMPTY: Final = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Pane:
    """Traffic of one pane, t series with b occupied buckets in all.

    Attributes:
        slots: Shape (t,), int64, ascending: the series.
        stats: Shape (4, t), int64: count, errors, sum in µs, maximum in µs.
        keys: Shape (b,), int64, ascending: `slot << BUCKET_BITS | bucket`.
        counts: Shape (b,), int64: requests in each bucket.
    """

    slots: NDArray[np.int64]
    stats: NDArray[np.int64]
    keys: NDArray[np.int64]
    counts: NDArray[np.int64]

    def renumbered(self, slot_of: NDArray[np.int64]) -> Pane:
        """Give the pane with other slot numbers; series that get the same number are merged.

        Args:
            slot_of: Shape (slots,): the new number of each slot.
        """
        keys = (slot_of[self.keys >> BUCKET_BITS] << BUCKET_BITS) | (self.keys & BUCKET_MASK)
        return merged(slot_of[self.slots], self.stats, keys, self.counts)


def merged(
    slots: NDArray[np.int64], stats: NDArray[np.int64], keys: NDArray[np.int64], counts: NDArray[np.int64]
) -> Pane:
    """Merge rows of one pane, in any order, into a pane; shapes as in `Pane`, repetitions allowed."""
    order = np.argsort(slots, kind="stable")
    starts = _starts(slots[order])
    stats = stats[:, order]
    summed = np.add.reduceat(stats, starts, axis=1)
    summed[3] = np.maximum.reduceat(stats[3], starts)
    unique, totals = added(keys, counts)
    return Pane(slots[order][starts], summed, unique, totals)


def added(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add up counts by key.

    Args:
        keys: Shape (n,), n > 0, any order.
        counts: Shape (n,).

    Returns:
        Ascending unique keys and their sums.
    """
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = _starts(keys)
    return keys[starts], np.add.reduceat(counts[order], starts)


def _starts(values: NDArray[np.int64]) -> NDArray[np.intp]:
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))


def stacked(panes: Sequence[Pane]) -> dict[str, NDArray[np.int64]]:
    """Give the arrays of panes one behind the other, for a snapshot."""
    return {
        "slots": np.concatenate([_EMPTY, *(np.diff(pane.slots, prepend=0) for pane in panes)]),
        "stats": np.concatenate([_EMPTY, *(pane.stats.ravel() for pane in panes)]),
        "keys": np.concatenate([_EMPTY, *(np.diff(pane.keys, prepend=0) for pane in panes)]),
        "counts": np.concatenate([_EMPTY, *(pane.counts for pane in panes)]),
    }


def unstacked(sizes: Sequence[tuple[int, int]], arrays: Mapping[str, NDArray[np.int64]]) -> Iterator[Pane]:
    """Give the panes of which `stacked` gave the arrays.

    Args:
        sizes: How many slots and how many keys each pane has.
        arrays: What `stacked` gave.
    """
    slot = key = 0
    for slots, keys in sizes:
        yield Pane(
            np.cumsum(arrays["slots"][slot : slot + slots]),
            arrays["stats"][4 * slot : 4 * (slot + slots)].reshape(4, slots),
            np.cumsum(arrays["keys"][key : key + keys]),
            arrays["counts"][key : key + keys],
        )
        slot += slots
        key += keys


class OpenPanes:
    """Panes that may still receive events."""

    def __init__(self) -> None:
        """Start without any pane."""
        self._panes: dict[int, Pane] = {}
        self._pending: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._pending_rows = 0

    def add(self, rows: PaneRows, slots: Slots, closed: int | None) -> int:
        """Append rows of panes that are not closed.

        Args:
            rows: Rows of any panes.
            slots: Slots of the series; new ones get theirs.
            closed: First pane that is not closed; None when none is.

        Returns:
            How many events were left out because their pane is closed.
        """
        totals, buckets, late = rows.totals, rows.buckets, 0
        if closed is not None and int(totals[PANE].min()) < closed:
            timely = totals[PANE] >= closed
            late = int(totals[COUNT, ~timely].sum())
            buckets = buckets[:, timely[buckets[0]]]
            buckets[0] = (np.cumsum(timely) - 1)[buckets[0]]
            totals = totals[:, timely]
        if totals.shape[1]:
            totals = totals.copy()
            totals[SERIES] = slots.of_numbers(rows.series, totals[SERIES])
            self._pending.append((totals, buckets))
            self._pending_rows += buckets.shape[1]
            if self._pending_rows > MAX_PENDING_ROWS:
                self._merge()
        return late

    def first(self) -> int | None:
        """Give the earliest pane that has traffic, None when there is none."""
        self._merge()
        return min(self._panes, default=None)

    def pop(self, pane: int) -> Pane | None:
        """Take a pane out, None when it had no traffic."""
        self._merge()
        return self._panes.pop(pane, None)

    def items(self) -> list[tuple[int, Pane]]:
        """List the panes, earliest first."""
        self._merge()
        return sorted(self._panes.items())

    def slots(self) -> NDArray[np.int64]:
        """Give the slots that have traffic, in any order."""
        return np.concatenate([_EMPTY, *(traffic.slots for _, traffic in self.items())])

    def renumber(self, slot_of: NDArray[np.int64]) -> None:
        """Give all slots other numbers; no two get the same."""
        self.replace([(pane, traffic.renumbered(slot_of)) for pane, traffic in self.items()])

    def replace(self, panes: Sequence[tuple[int, Pane]]) -> None:
        """Forget everything and hold these panes instead."""
        self._panes = dict(panes)
        self._pending, self._pending_rows = [], 0

    def _merge(self) -> None:
        """Fold the appended rows into their panes."""
        if not self._pending:
            return
        totals = np.concatenate([rows for rows, _ in self._pending], axis=1)
        buckets = np.concatenate([rows for _, rows in self._pending], axis=1)
        sizes = [rows.shape[1] for rows, _ in self._pending]
        offsets = np.cumsum(sizes) - sizes
        owner = buckets[0] + np.repeat(offsets, [rows.shape[1] for _, rows in self._pending])
        self._pending, self._pending_rows = [], 0
        for pane, rows, bucket_rows in _by_pane(totals[PANE], totals[PANE][owner]):
            keys = (totals[SERIES][owner[bucket_rows]] << BUCKET_BITS) | buckets[1, bucket_rows]
            parts = [(totals[SERIES, rows], totals[COUNT : MAX_US + 1, rows], keys, buckets[2, bucket_rows])]
            if (known := self._panes.get(pane)) is not None:
                parts.append((known.slots, known.stats, known.keys, known.counts))
            self._panes[pane] = merged(*(np.concatenate(column, axis=-1) for column in zip(*parts, strict=True)))


def _by_pane(
    total_panes: NDArray[np.int64], bucket_panes: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.intp] | slice, NDArray[np.intp] | slice]]:
    """Yield each pane with the positions of its totals and of its bucket rows."""
    panes = np.unique(total_panes)
    if len(panes) == 1:
        yield int(panes[0]), slice(None), slice(None)
        return
    totals, buckets = np.argsort(total_panes, kind="stable"), np.argsort(bucket_panes, kind="stable")
    total_cuts = np.append(np.searchsorted(total_panes[totals], panes), len(totals)).tolist()
    bucket_cuts = np.append(np.searchsorted(bucket_panes[buckets], panes), len(buckets)).tolist()
    for number, pane in enumerate(panes.tolist()):
        yield (
            pane,
            totals[total_cuts[number] : total_cuts[number + 1]],
            buckets[bucket_cuts[number] : bucket_cuts[number + 1]],
        )

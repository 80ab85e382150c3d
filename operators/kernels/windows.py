"""Sliding windows of one shard: exact counts and exponential histograms over a run of panes.

A window's histogram is kept as one sorted array over all series: the pane that enters is added, the pane that leaves is
subtracted. So closing costs what is in the window, however many panes it spans.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.buckets import BUCKET_BITS, BUCKET_MASK, middle_us
from operators.kernels.codec import pack, unpack
from operators.kernels.frames import WindowFrame
from operators.kernels.panes import OpenPanes, Pane, added
from operators.kernels.sharding import COUNT, PANE, SERIES, PaneRows
from operators.kernels.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

OVERFLOW_ENDPOINT: Final = "__overflow__"
"""Endpoint that stands for the series of a service that came after the limit was reached."""

_NEVER: Final = -(1 << 60)
_PERCENTS: Final = np.array([[50], [90], [99]])
_COMPACT_SLOTS: Final = 64
_KIND: Final = "windows"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class WindowRules:
    """The settings of the windows.

    Attributes:
        length_ms: Length of a window, a multiple of `slide_ms`.
        slide_ms: Distance of two window ends, and length of a pane.
        series_ttl_ms: How long a series that is silent keeps its windows.
        max_series: Most series in all shards; later ones fold into `__overflow__` of their service.
    """

    length_ms: int
    slide_ms: int
    series_ttl_ms: int
    max_series: int

    @property
    def panes_in_window(self) -> int:
        """How many panes a window spans."""
        return self.length_ms // self.slide_ms


class Windows:
    """The windows of one shard.

    Attributes:
        closed: First pane that is not complete; None before anything was.
        folded: How many times a new series was folded into `__overflow__`, once a pane.
    """

    def __init__(self, rules: WindowRules) -> None:
        """Start without series.

        Args:
            rules: The settings of the windows.
        """
        self.rules = rules
        self.closed: int | None = None
        self.folded = 0
        self.open = OpenPanes()
        self.recent: deque[tuple[int, Pane]] = deque()
        self.last_pane = np.zeros(0, np.int64)
        self.row = np.zeros(0, np.int64)
        self._slots = Slots()
        self._to_fold: dict[int, list[tuple[str, str]]] = {}
        self._sums = np.zeros((3, 0), np.int64)
        self._keys = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)
        self._shown: tuple[list[str], list[str]] = ([], [])

    @property
    def names(self) -> list[tuple[str, str]]:
        """(service, endpoint) of each slot."""
        return self._slots.names

    @property
    def series(self) -> int:
        """How many series have windows."""
        return int(np.count_nonzero(self.last_pane > _NEVER))

    def add(self, rows: PaneRows) -> tuple[int, int]:
        """Add pre-aggregated events.

        Args:
            rows: Rows of this shard, of any panes, in any order.

        Returns:
            How many events were accepted, and how many came after their pane was complete. The latter happens only
            behind an idle partition that wakes up, or behind the end of a job that is resumed.
        """
        totals, buckets = rows.totals, rows.buckets
        count = int(totals[COUNT].sum())
        if self.closed is not None and int(totals[PANE].min()) < self.closed:
            timely = totals[PANE] >= self.closed
            late = int(totals[COUNT, ~timely].sum())
            buckets = buckets[:, timely[buckets[0]]]
            buckets[0] = (np.cumsum(timely) - 1)[buckets[0]]
            totals = totals[:, timely]
            count -= late
        else:
            late = 0
        if count:
            totals = totals.copy()
            totals[SERIES] = self._slots.of_numbers(rows.series, totals[SERIES])
            self._fit()
            self.open.add(totals, buckets)
        return count, late

    def fold(self, folded: dict[int, list[tuple[str, str]]]) -> None:
        """Take note of series that have no place.

        Args:
            folded: By pane, none of which is closed yet, the series whose traffic goes to `__overflow__`.
        """
        self._to_fold.update(folded)

    def advance(self, complete: int) -> list[WindowFrame]:
        """Close all windows that end at or before the start of pane `complete`.

        Args:
            complete: First pane that may still receive events.

        Returns:
            One frame for each window end at which some series lives, in order of time, and one without rows when the
            last series is gone.
        """
        frames: list[WindowFrame] = []
        if self.closed is not None and self.closed >= complete:
            return frames
        while self.closed is None or self.closed < complete:
            following = self.open.first()
            if not self.series or self.closed is None:
                # Nothing lives, so no window is missed on the way to the next traffic.
                self.closed = complete if following is None else min(following, complete)
                self._forget_window()
                if self.closed == complete:
                    break
            pane = self.closed
            self._enter(pane, self.open.pop(pane))
            self.closed = pane + 1
            frame = self._emit(pane)
            if frame is not None:
                frames.append(frame)
        self._compact()
        return frames

    def to_bytes(self) -> bytes:
        """Encode everything that the next windows depend on."""
        waiting = self.open.items()
        panes = [*self.recent, *waiting]
        n = len(self.names)
        values = {
            "closed": self.closed,
            "folded": self.folded,
            "names": self.names,
            "recent": [pane for pane, _ in self.recent],
            "open": [pane for pane, _ in waiting],
            "to_fold": list(self._to_fold.items()),
        }
        arrays = {
            "last_pane": self.last_pane[:n],
            "row": self.row[:n],
            "sizes": np.array([(len(traffic.slots), len(traffic.keys)) for _, traffic in panes], np.int64),
            "slots": _joined([np.diff(traffic.slots, prepend=0) for _, traffic in panes]),
            "stats": _joined([traffic.stats.ravel() for _, traffic in panes]),
            "keys": _joined([np.diff(traffic.keys, prepend=0) for _, traffic in panes]),
            "counts": _joined([traffic.counts for _, traffic in panes]),
        }
        return pack(_KIND, _VERSION, values, arrays)

    @classmethod
    def from_bytes(cls, rules: WindowRules, data: bytes) -> Windows:
        """Resume from what `to_bytes` gave.

        Args:
            rules: The settings of the windows.
            data: A snapshot.

        Raises:
            StateError: The bytes are damaged or of a layout that this release does not read.
        """
        _, values, arrays = unpack(_KIND, (_VERSION,), data)
        self = cls(rules)
        self.closed, self.folded = values["closed"], values["folded"]
        self._to_fold = {
            pane: [(service, endpoint) for service, endpoint in series] for pane, series in values["to_fold"]
        }
        self._slots = Slots([(service, endpoint) for service, endpoint in values["names"]])
        self._fit()
        n = len(self.names)
        self.last_pane[:n], self.row[:n] = arrays["last_pane"], arrays["row"]
        panes = [*values["recent"], *values["open"]]
        restored = list(zip(panes, _restored(arrays), strict=True))
        recent = len(values["recent"])
        self.open.replace(restored[recent:])
        for pane, traffic in restored[:recent]:
            self.recent.append((pane, traffic))
            self._sums[:, traffic.slots] += traffic.stats[:3]
        if recent:
            keys = np.concatenate([traffic.keys for _, traffic in self.recent])
            self._keys, self._counts = added(keys, np.concatenate([traffic.counts for _, traffic in self.recent]))
        shown = np.flatnonzero(self.row >= 0)
        names = [self.names[slot] for slot in shown[np.argsort(self.row[shown])].tolist()]
        self._shown = ([service for service, _ in names], [endpoint for _, endpoint in names])
        return self

    def _fit(self) -> None:
        """Make room for all slots."""
        more = 2 * len(self.names) - len(self.last_pane)
        if len(self.names) <= len(self.last_pane):
            return
        self.last_pane = np.concatenate([self.last_pane, np.full(more, _NEVER)])
        self.row = np.concatenate([self.row, np.full(more, -1)])
        self._sums = np.concatenate([self._sums, np.zeros((3, more), np.int64)], axis=1)

    def _forget_window(self) -> None:
        self.recent.clear()
        self._keys = self._counts = np.zeros(0, np.int64)
        self._sums[:] = 0

    def _enter(self, pane: int, traffic: Pane | None) -> None:
        """Let a complete pane into the window, and the one that is a window's length older out of it."""
        keys, counts = [self._keys], [self._counts]
        if traffic is not None:
            traffic = self._folded(traffic, self._to_fold.pop(pane, ()))
            self.last_pane[traffic.slots] = pane
            self._sums[:, traffic.slots] += traffic.stats[:3]
            self.recent.append((pane, traffic))
            keys.append(traffic.keys)
            counts.append(traffic.counts)
        while self.recent and self.recent[0][0] <= pane - self.rules.panes_in_window:
            _, old = self.recent.popleft()
            self._sums[:, old.slots] -= old.stats[:3]
            keys.append(old.keys)
            counts.append(-old.counts)
        if len(keys) > 1:
            summed_keys, summed = added(np.concatenate(keys), np.concatenate(counts))
            occupied = summed > 0
            self._keys, self._counts = summed_keys[occupied], summed[occupied]

    def _folded(self, traffic: Pane, series: Sequence[tuple[str, str]]) -> Pane:
        """Move the traffic of series that have no place to `__overflow__` of their service."""
        if not series:
            return traffic
        self.folded += len(series)
        slots = self._slots.of(series)
        overflow = self._slots.of([(service, OVERFLOW_ENDPOINT) for service, _ in series])
        self._fit()
        slot_of = np.arange(len(self.names))
        slot_of[slots] = overflow
        return traffic.renumbered(slot_of)

    def _emit(self, pane: int) -> WindowFrame | None:
        """Build the frame of the window that ends with `pane`; series that were silent too long are dropped."""
        n = len(self.names)
        known = self.last_pane[:n]
        silent_ms = (pane - known) * self.rules.slide_ms
        lives = (known > _NEVER) & ((self._sums[0, :n] > 0) | (silent_ms <= self.rules.series_ttl_ms))
        known[~lives] = _NEVER
        slots = np.flatnonzero(lives)
        before = self.row[slots]
        rows_before = len(self._shown[0])
        unchanged = len(slots) == rows_before and bool((before == np.arange(len(slots))).all())
        if not unchanged:
            self.row[:] = -1
            self.row[slots] = np.arange(len(slots))
            names = [self.names[slot] for slot in slots.tolist()]
            self._shown = ([service for service, _ in names], [endpoint for _, endpoint in names])
        if not len(slots) and not rows_before:
            return None
        count, errors, sum_us = self._sums[:, slots]
        max_us = self._maxima()[slots]
        p50_us, p90_us, p99_us = self._quantiles_us(slots, count, max_us)
        end_ms = (pane + 1) * self.rules.slide_ms
        return WindowFrame(
            window_start_ms=end_ms - self.rules.length_ms,
            window_end_ms=end_ms,
            service=self._shown[0],
            endpoint=self._shown[1],
            count=count,
            errors=errors,
            sum_us=sum_us,
            max_us=max_us,
            p50_us=p50_us,
            p90_us=p90_us,
            p99_us=p99_us,
            carry=None if unchanged else before,
        )

    def _maxima(self) -> NDArray[np.int64]:
        """Give the largest latency in the window, shape (slots,), µs."""
        maxima = np.zeros(len(self.last_pane), np.int64)
        if self.recent:
            slots = np.concatenate([traffic.slots for _, traffic in self.recent])
            np.maximum.at(maxima, slots, np.concatenate([traffic.stats[3] for _, traffic in self.recent]))
        return maxima

    def _quantiles_us(
        self, slots: NDArray[np.int64], count: NDArray[np.int64], max_us: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Estimate P50, P90 and P99: the middle of the bucket that holds value number `ceil(q * count)`.

        Returns:
            Shape (3, n), µs, at most the maximum; NaN where `count` is 0.
        """
        if not len(self._keys):
            return np.full((3, len(slots)), np.nan)
        running = np.cumsum(self._counts)
        below = np.concatenate([[0], running])[np.searchsorted(self._keys, slots << BUCKET_BITS)]
        rank = (_PERCENTS * count + 99) // 100
        position = np.minimum(np.searchsorted(running, below + rank), len(running) - 1)
        estimate = np.minimum(middle_us(self._keys[position] & BUCKET_MASK), max_us)
        return np.where(count > 0, estimate, np.nan)

    def _compact(self) -> None:
        """Renumber the slots when most of them stand for series that are gone."""
        n = len(self.names)
        if n - self.series <= max(_COMPACT_SLOTS, self.series):
            return
        waiting = self.open.items()
        used = self.last_pane[:n] > _NEVER
        for _, traffic in waiting:
            used[traffic.slots] = True
        kept = np.flatnonzero(used)
        if n - len(kept) <= len(kept):
            return
        slot_of = np.cumsum(used) - 1
        self._slots = Slots([self.names[slot] for slot in kept.tolist()])
        self.last_pane, self.row, self._sums = self.last_pane[kept], self.row[kept], self._sums[:, kept]
        self.open.replace([(pane, traffic.renumbered(slot_of)) for pane, traffic in waiting])
        self.recent = deque((pane, traffic.renumbered(slot_of)) for pane, traffic in self.recent)
        self._keys = (slot_of[self._keys >> BUCKET_BITS] << BUCKET_BITS) | (self._keys & BUCKET_MASK)


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _restored(arrays: dict[str, NDArray[np.int64]]) -> Iterator[Pane]:
    """Cut the arrays of a snapshot into its panes."""
    slot = key = 0
    for slots, keys in arrays["sizes"].tolist():
        yield Pane(
            np.cumsum(arrays["slots"][slot : slot + slots]),
            arrays["stats"][4 * slot : 4 * (slot + slots)].reshape(4, slots),
            np.cumsum(arrays["keys"][key : key + keys]),
            arrays["counts"][key : key + keys],
        )
        slot += slots
        key += keys

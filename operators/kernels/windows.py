"""Sliding windows of one shard: exact counts and exponential histograms over a run of panes.

A window's histogram is kept as one sorted array over all series: the pane that enters is added, the pane that leaves is
subtracted. So closing costs what is in the window, however many panes it spans.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.kernels.buckets import BUCKET_BITS, BUCKET_MASK, middle_us
from operators.kernels.closing import NEVER, ClosingPanes
from operators.kernels.frames import WindowFrame
from operators.kernels.panes import OpenPanes, Pane, added, stacked, unstacked
from operators.kernels.sharding import PaneRows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from operators.kernels.window_rules import WindowRules

_EMPTY: Final = np.zeros(0, np.int64)
_PERCENTS: Final = np.array([[50], [90], [99]])


class Windows(ClosingPanes[PaneRows, Pane, WindowFrame]):
    """The windows of one shard.

    A pane has a frame when some series lives at its end, and one without rows when the last series is gone.
    """

    KIND = "windows"
    VERSION = 1

    _open: OpenPanes

    def __init__(self, rules: WindowRules) -> None:
        """Start without series.

        Args:
            rules: The settings of the windows.
        """
        super().__init__(rules)
        self._open = OpenPanes()
        self._recent: deque[tuple[int, Pane]] = deque()
        self._last_pane, self._row = _EMPTY, _EMPTY
        self._sums = np.zeros((3, 0), np.int64)
        self._keys, self._counts = _EMPTY, _EMPTY
        self._shown: tuple[list[str], list[str]] = ([], [])

    def _stored(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        values, arrays = super()._stored()
        waiting = self._open.items()
        panes = [traffic for _, traffic in (*self._recent, *waiting)]
        values |= {"recent": [pane for pane, _ in self._recent], "open": [pane for pane, _ in waiting]}
        arrays |= {
            "last_pane": self._last_pane,
            "row": self._row,
            "sizes": np.array([(len(traffic.slots), len(traffic.keys)) for traffic in panes], np.int64),
            **stacked(panes),
        }
        return values, arrays

    def _restore(self, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        super()._restore(values, arrays)
        self._last_pane, self._row = arrays["last_pane"], arrays["row"]
        panes = [*values["recent"], *values["open"]]
        restored = list(zip(panes, unstacked(arrays["sizes"].tolist(), arrays), strict=True))
        recent = len(values["recent"])
        self._open.replace(restored[recent:])
        for pane, traffic in restored[:recent]:
            self._recent.append((pane, traffic))
            self._sums[:, traffic.slots] += traffic.stats[:3]
        if recent:
            keys = np.concatenate([traffic.keys for _, traffic in self._recent])
            self._keys, self._counts = added(keys, np.concatenate([traffic.counts for _, traffic in self._recent]))
        shown = np.flatnonzero(self._row >= 0)
        names = [self.names[slot] for slot in shown[np.argsort(self._row[shown])].tolist()]
        self._shown = ([service for service, _ in names], [endpoint for _, endpoint in names])

    def _last_panes(self) -> NDArray[np.int64]:
        return self._last_pane

    def _fit(self) -> None:
        more = len(self.names) - len(self._last_pane)
        if more:
            self._last_pane = np.concatenate([self._last_pane, np.full(more, NEVER)])
            self._row = np.concatenate([self._row, np.full(more, -1)])
            self._sums = np.concatenate([self._sums, np.zeros((3, more), np.int64)], axis=1)

    def _close(self, pane: int, traffic: Pane | None) -> WindowFrame | None:
        self._enter(pane, traffic)
        return self._frame(pane)

    def _enter(self, pane: int, traffic: Pane | None) -> None:
        """Let a complete pane into the window, and the one that is a window's length older out of it."""
        keys, counts = [self._keys], [self._counts]
        if traffic is not None:
            self._last_pane[traffic.slots] = pane
            self._sums[:, traffic.slots] += traffic.stats[:3]
            self._recent.append((pane, traffic))
            keys.append(traffic.keys)
            counts.append(traffic.counts)
        while self._recent and self._recent[0][0] <= pane - self.rules.panes_in_window:
            _, old = self._recent.popleft()
            self._sums[:, old.slots] -= old.stats[:3]
            keys.append(old.keys)
            counts.append(-old.counts)
        if len(keys) > 1:
            summed_keys, summed = added(np.concatenate(keys), np.concatenate(counts))
            occupied = summed > 0
            self._keys, self._counts = summed_keys[occupied], summed[occupied]

    def _frame(self, pane: int) -> WindowFrame | None:
        """Build the frame of the window that ends with `pane`; series that were silent too long are dropped."""
        known = self._last_pane
        silent_ms = (pane - known) * self.rules.slide_ms
        lives = (known > NEVER) & ((self._sums[0] > 0) | (silent_ms <= self.rules.series_ttl_ms))
        known[~lives] = NEVER
        slots = np.flatnonzero(lives)
        before = self._row[slots]
        rows_before = len(self._shown[0])
        unchanged = len(slots) == rows_before and bool((before == np.arange(len(slots))).all())
        if not unchanged:
            self._row[:] = -1
            self._row[slots] = np.arange(len(slots))
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
        maxima = np.zeros(len(self._last_pane), np.int64)
        if self._recent:
            slots = np.concatenate([traffic.slots for _, traffic in self._recent])
            np.maximum.at(maxima, slots, np.concatenate([traffic.stats[3] for _, traffic in self._recent]))
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

    def _renumber(self, kept: NDArray[np.intp], slot_of: NDArray[np.int64]) -> None:
        self._last_pane, self._row, self._sums = self._last_pane[kept], self._row[kept], self._sums[:, kept]
        self._recent = deque((pane, traffic.renumbered(slot_of)) for pane, traffic in self._recent)
        self._keys = (slot_of[self._keys >> BUCKET_BITS] << BUCKET_BITS) | (self._keys & BUCKET_MASK)

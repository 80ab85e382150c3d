"""Counters and histograms of one shard, cumulative since each series began, told at the end of every pane.

Panes close as those of the windows do, so that what is counted here is what is accepted there. The histogram of a
series has the resolution of the panes until it has more than `MAX_BUCKETS` buckets; then neighbours are merged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.kernels.buckets import BUCKET_BITS, BUCKET_MASK
from operators.kernels.closing import NEVER, ClosingPanes
from operators.kernels.open_tallies import OpenTallies, Slowest, Traffic
from operators.kernels.panes import added
from operators.kernels.resolution import FINEST_SCHEMA, coarser
from operators.kernels.tally_frame import Ended, Exemplar, TallyFrame
from operators.kernels.tally_rows import STATUS_BITS, STATUS_MASK, TallyRows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from operators.kernels.window_rules import WindowRules

MAX_BUCKETS: Final = 160
"""Most buckets in the histogram of a series; what other libraries keep as well."""

_US_PER_S: Final = 1_000_000
_EMPTY: Final = np.zeros(0, np.int64)

LAST, BORN, SCHEMA, COUNT, SUM_S, SUM_US = range(6)
"""Rows of the numbers of each slot: last and first pane with traffic, schema, requests, and the sum of latencies as
whole seconds and the microseconds beyond them, which together never overflow."""

_NEW: Final = np.array([[NEVER], [NEVER], [FINEST_SCHEMA], [0], [0], [0]], np.int64)


class Tallies(ClosingPanes[TallyRows, Traffic, TallyFrame]):
    """The cumulative numbers of one shard.

    A pane has a frame when some series lives or ends at its end. Of the rules, windows have no part in it.
    """

    KIND = "tallies"
    VERSION = 1

    _open: OpenTallies

    def __init__(self, rules: WindowRules) -> None:
        """Start without series.

        Args:
            rules: The settings of the windows.
        """
        super().__init__(rules)
        self._open = OpenTallies()
        self._numbers = np.repeat(_NEW, 0, axis=1)
        self._keys, self._counts = _EMPTY, _EMPTY
        self._code_keys, self._code_counts, self._code_born = _EMPTY, _EMPTY, _EMPTY
        self._shown: tuple[NDArray[np.int64], list[str], list[str]] = (_EMPTY, [], [])

    def again(self) -> TallyFrame | None:
        """Give the frame of the last pane once more, without exemplars; None when no series lives."""
        if self.closed is None or not self.series:
            return None
        return replace(self._frame(self.closed - 1, {}), again=True)

    def _stored(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        values, arrays = super()._stored()
        values |= {"open": self._open.plain()}
        arrays |= {
            "numbers": self._numbers,
            "keys": np.diff(self._keys, prepend=0),
            "counts": self._counts,
            "code_keys": np.diff(self._code_keys, prepend=0),
            "code_counts": self._code_counts,
            "code_born": self._code_born,
            **self._open.arrays(),
        }
        return values, arrays

    def _restore(self, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        super()._restore(values, arrays)
        self._numbers = arrays["numbers"]
        self._keys, self._counts = np.cumsum(arrays["keys"]), arrays["counts"]
        self._code_keys, self._code_counts = np.cumsum(arrays["code_keys"]), arrays["code_counts"]
        self._code_born = arrays["code_born"]
        self._open.restore(values["open"], arrays)

    def _last_panes(self) -> NDArray[np.int64]:
        last: NDArray[np.int64] = self._numbers[LAST]
        return last

    def _fit(self) -> None:
        more = len(self.names) - self._numbers.shape[1]
        if more:
            self._numbers = np.concatenate([self._numbers, np.repeat(_NEW, more, axis=1)], axis=1)

    def _close(self, pane: int, traffic: Traffic | None) -> TallyFrame:
        if traffic is None:
            return self._frame(pane, {})
        slots, stats = traffic.pane.slots, traffic.pane.stats
        numbers = self._numbers
        numbers[BORN, slots] = np.where(numbers[LAST, slots] > NEVER, numbers[BORN, slots], pane)
        numbers[LAST, slots] = pane
        numbers[COUNT, slots] += stats[0]
        microseconds = numbers[SUM_US, slots] + stats[2]
        numbers[SUM_S, slots] += microseconds // _US_PER_S
        numbers[SUM_US, slots] = microseconds % _US_PER_S
        self._count_buckets(traffic.pane.keys, traffic.pane.counts)
        self._count_codes(traffic.code_keys, traffic.code_counts, pane)
        return self._frame(pane, traffic.slowest)

    def _count_buckets(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Add buckets of the finest schema, and lower the schema of series that have too many."""
        schema = self._numbers[SCHEMA]
        keys = self._coarsened(keys, FINEST_SCHEMA - schema)
        self._keys, self._counts = added(np.concatenate([self._keys, keys]), np.concatenate([self._counts, counts]))
        while True:
            size = np.bincount(self._keys >> BUCKET_BITS, minlength=len(schema))
            crowded = size > MAX_BUCKETS
            if not crowded.any():
                return
            schema[crowded] -= 1
            self._keys, self._counts = added(self._coarsened(self._keys, crowded.astype(np.int64)), self._counts)

    @staticmethod
    def _coarsened(keys: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Lower the schema of keys, by slot."""
        slots = keys >> BUCKET_BITS
        return (slots << BUCKET_BITS) | coarser(keys & BUCKET_MASK, steps[slots])

    def _count_codes(self, keys: NDArray[np.int64], counts: NDArray[np.int64], pane: int) -> None:
        """Add requests by slot and status code."""
        before, born = self._code_keys, self._code_born
        self._code_keys, self._code_counts = added(
            np.concatenate([before, keys]), np.concatenate([self._code_counts, counts])
        )
        self._code_born = np.full(len(self._code_keys), pane)
        self._code_born[np.searchsorted(self._code_keys, before)] = born

    def _frame(self, pane: int, slowest: Slowest) -> TallyFrame:
        """Build the frame of a pane that was just entered; series that were silent too long end."""
        ended = self._end_silent(pane)
        slots, services, endpoints = self._living()
        row_of = np.zeros(self._numbers.shape[1], np.int64)
        row_of[slots] = np.arange(len(slots))
        numbers = self._numbers[:, slots]
        slide_ms = self.rules.slide_ms
        exemplars = [Exemplar(int(row_of[slot]), *found) for slot, found in sorted(slowest.items())]
        return TallyFrame(
            pane_start_ms=pane * slide_ms,
            pane_end_ms=(pane + 1) * slide_ms,
            service=services,
            endpoint=endpoints,
            started_ms=numbers[BORN] * slide_ms,
            count=numbers[COUNT],
            sum_s=numbers[SUM_S] + numbers[SUM_US] / _US_PER_S,
            schema=numbers[SCHEMA],
            bucket_row=row_of[self._keys >> BUCKET_BITS],
            bucket_code=self._keys & BUCKET_MASK,
            bucket_count=self._counts,
            code_row=row_of[self._code_keys >> STATUS_BITS],
            code_status=self._code_keys & STATUS_MASK,
            code_count=self._code_counts,
            code_started_ms=self._code_born * slide_ms,
            exemplars=tuple(exemplars),
            ended=ended,
        )

    def _living(self) -> tuple[NDArray[np.int64], list[str], list[str]]:
        """Give the slots of all series with their services and endpoints; the lists are new when anything changed."""
        slots = np.flatnonzero(self._numbers[LAST] > NEVER)
        if not np.array_equal(slots, self._shown[0]):
            names = [self.names[slot] for slot in slots.tolist()]
            self._shown = (slots, [service for service, _ in names], [endpoint for _, endpoint in names])
        return self._shown

    def _end_silent(self, pane: int) -> tuple[Ended, ...]:
        """Forget the series that had no traffic for the time to live."""
        last = self._numbers[LAST]
        keeps = self.rules.series_ttl_ms // self.rules.slide_ms
        silent = (last > NEVER) & (pane - last > keeps)
        if not silent.any():
            return ()
        code_slots = self._code_keys >> STATUS_BITS
        ended = []
        for slot in np.flatnonzero(silent).tolist():
            first, stop = np.searchsorted(code_slots, [slot, slot + 1])
            statuses = (self._code_keys[first:stop] & STATUS_MASK).tolist()
            ended.append(Ended(*self.names[slot], tuple(statuses)))
        kept = ~silent[self._keys >> BUCKET_BITS]
        self._keys, self._counts = self._keys[kept], self._counts[kept]
        kept = ~silent[code_slots]
        self._code_keys, self._code_counts = self._code_keys[kept], self._code_counts[kept]
        self._code_born = self._code_born[kept]
        self._numbers[:, silent] = _NEW
        return tuple(ended)

    def _renumber(self, kept: NDArray[np.intp], slot_of: NDArray[np.int64]) -> None:
        self._numbers = self._numbers[:, kept]
        self._keys = (slot_of[self._keys >> BUCKET_BITS] << BUCKET_BITS) | (self._keys & BUCKET_MASK)
        self._code_keys = (slot_of[self._code_keys >> STATUS_BITS] << STATUS_BITS) | (self._code_keys & STATUS_MASK)
        self._shown = (_EMPTY, [], [])

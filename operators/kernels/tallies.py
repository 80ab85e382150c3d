"""Counters and histograms of one shard, cumulative since each series began, told at the end of every pane.

Panes close as those of the windows do, so that what is counted here is what is accepted there. The histogram of a
series has the resolution of the panes until it has more than `MAX_BUCKETS` buckets; then neighbours are merged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.buckets import BUCKET_BITS, BUCKET_MASK
from operators.kernels.codec import pack, unpack
from operators.kernels.open_tallies import OpenTallies, Slowest, Traffic
from operators.kernels.panes import added
from operators.kernels.resolution import FINEST_SCHEMA, coarser
from operators.kernels.slots import Slots
from operators.kernels.tally_frame import Ended, Exemplar, TallyFrame
from operators.kernels.tally_rows import STATUS_BITS, STATUS_MASK, TallyRows
from operators.kernels.windows import OVERFLOW_ENDPOINT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.windows import WindowRules

MAX_BUCKETS: Final = 160
"""Most buckets in the histogram of a series; what other libraries keep as well."""

_NEVER: Final = -(1 << 60)
_US_PER_S: Final = 1_000_000
_COMPACT_SLOTS: Final = 64
_EMPTY: Final = np.zeros(0, np.int64)
_KIND: Final = "tallies"
_VERSION: Final = 1

LAST, BORN, SCHEMA, COUNT, SUM_S, SUM_US = range(6)
"""Rows of the numbers of each slot: last and first pane with traffic, schema, requests, and the sum of latencies as
whole seconds and the microseconds beyond them, which together never overflow."""

_NEW: Final = np.array([[_NEVER], [_NEVER], [FINEST_SCHEMA], [0], [0], [0]], np.int64)


class Tallies:
    """The cumulative numbers of one shard.

    Attributes:
        rules: Length of a pane, and the limits. Windows have no part in it.
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
        self._slots = Slots()
        self._open = OpenTallies()
        self._to_fold: dict[int, list[tuple[str, str]]] = {}
        self._numbers = np.repeat(_NEW, 0, axis=1)
        self._keys, self._counts = _EMPTY, _EMPTY
        self._code_keys, self._code_counts, self._code_born = _EMPTY, _EMPTY, _EMPTY
        self._shown: tuple[NDArray[np.int64], list[str], list[str]] = (_EMPTY, [], [])

    @property
    def series(self) -> int:
        """How many series are counted."""
        return int(np.count_nonzero(self._numbers[LAST] > _NEVER))

    def add(self, rows: TallyRows) -> tuple[int, int]:
        """Add pre-aggregated requests.

        Args:
            rows: Rows of this shard, of any panes, in any order.

        Returns:
            How many requests were accepted, and how many came after their pane was complete, as with windows.
        """
        late = self._open.add(rows, self._slots, self.closed)
        return rows.requests - late, late

    def fold(self, folded: dict[int, list[tuple[str, str]]]) -> None:
        """Take note of series that have no place.

        Args:
            folded: By pane, none of which is closed yet, the series whose traffic goes to `__overflow__`.
        """
        self._to_fold.update(folded)

    def advance(self, complete: int) -> list[TallyFrame]:
        """Close all panes before `complete`.

        Args:
            complete: First pane that may still receive events.

        Returns:
            One frame for each pane at whose end some series lives or ends, in order of time.
        """
        frames: list[TallyFrame] = []
        if self.closed is not None and self.closed >= complete:
            return frames
        while self.closed is None or self.closed < complete:
            if not self.series or self.closed is None:
                following = self._open.first()
                self.closed = complete if following is None else min(following, complete)
                if self.closed == complete:
                    break
            pane = self.closed
            slowest = self._enter(pane)
            self.closed = pane + 1
            frames.append(self._frame(pane, slowest))
        self._compact()
        return frames

    def to_bytes(self) -> bytes:
        """Encode everything that the next frames depend on."""
        names = self._slots.names
        self._fit()
        values = {
            "closed": self.closed,
            "folded": self.folded,
            "names": names,
            "to_fold": list(self._to_fold.items()),
            "open": self._open.plain(),
        }
        arrays = {
            "numbers": self._numbers,
            "keys": np.diff(self._keys, prepend=0),
            "counts": self._counts,
            "code_keys": np.diff(self._code_keys, prepend=0),
            "code_counts": self._code_counts,
            "code_born": self._code_born,
        }
        return pack(_KIND, _VERSION, values, {**arrays, **self._open.arrays()})

    @classmethod
    def from_bytes(cls, rules: WindowRules, data: bytes) -> Tallies:
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
        self._numbers = arrays["numbers"]
        self._keys, self._counts = np.cumsum(arrays["keys"]), arrays["counts"]
        self._code_keys, self._code_counts = np.cumsum(arrays["code_keys"]), arrays["code_counts"]
        self._code_born = arrays["code_born"]
        self._open.restore(values["open"], arrays)
        return self

    def _fit(self) -> None:
        """Make room for all slots, and no more than that."""
        more = len(self._slots.names) - self._numbers.shape[1]
        if more > 0:
            self._numbers = np.concatenate([self._numbers, np.repeat(_NEW, more, axis=1)], axis=1)

    def _enter(self, pane: int) -> Slowest:
        """Count the traffic of a complete pane, and give its slowest requests by slot."""
        traffic = self._open.pop(pane)
        self._fit()
        if traffic is None:
            return {}
        traffic = self._folded(traffic, self._to_fold.pop(pane, []))
        slots, stats = traffic.pane.slots, traffic.pane.stats
        numbers = self._numbers
        numbers[BORN, slots] = np.where(numbers[LAST, slots] > _NEVER, numbers[BORN, slots], pane)
        numbers[LAST, slots] = pane
        numbers[COUNT, slots] += stats[0]
        microseconds = numbers[SUM_US, slots] + stats[2]
        numbers[SUM_S, slots] += microseconds // _US_PER_S
        numbers[SUM_US, slots] = microseconds % _US_PER_S
        self._count_buckets(traffic.pane.keys, traffic.pane.counts)
        self._count_codes(traffic.code_keys, traffic.code_counts, pane)
        return traffic.slowest

    def _folded(self, traffic: Traffic, series: list[tuple[str, str]]) -> Traffic:
        """Move the traffic of series that have no place to `__overflow__` of their service."""
        if not series:
            return traffic
        self.folded += len(series)
        slots = self._slots.of(series)
        overflow = self._slots.of([(service, OVERFLOW_ENDPOINT) for service, _ in series])
        self._fit()
        slot_of = np.arange(len(self._slots.names))
        slot_of[slots] = overflow
        return traffic.renumbered(slot_of)

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
        slots = np.flatnonzero(self._numbers[LAST] > _NEVER)
        if not np.array_equal(slots, self._shown[0]):
            names = [self._slots.names[slot] for slot in slots.tolist()]
            self._shown = (slots, [service for service, _ in names], [endpoint for _, endpoint in names])
        return self._shown

    def _end_silent(self, pane: int) -> tuple[Ended, ...]:
        """Forget the series that had no traffic for the time to live."""
        last = self._numbers[LAST]
        keeps = self.rules.series_ttl_ms // self.rules.slide_ms
        silent = (last > _NEVER) & (pane - last > keeps)
        if not silent.any():
            return ()
        code_slots = self._code_keys >> STATUS_BITS
        ended = []
        for slot in np.flatnonzero(silent).tolist():
            first, stop = np.searchsorted(code_slots, [slot, slot + 1])
            statuses = (self._code_keys[first:stop] & STATUS_MASK).tolist()
            ended.append(Ended(*self._slots.names[slot], tuple(statuses)))
        kept = ~silent[self._keys >> BUCKET_BITS]
        self._keys, self._counts = self._keys[kept], self._counts[kept]
        kept = ~silent[code_slots]
        self._code_keys, self._code_counts = self._code_keys[kept], self._code_counts[kept]
        self._code_born = self._code_born[kept]
        self._numbers[:, silent] = _NEW
        return tuple(ended)

    def _compact(self) -> None:
        """Renumber the slots when most of them stand for series that are gone."""
        n = len(self._slots.names)
        if n - self.series <= max(_COMPACT_SLOTS, self.series):
            return
        self._fit()
        used = self._numbers[LAST] > _NEVER
        used[self._open.slots()] = True
        kept = np.flatnonzero(used)
        if n - len(kept) <= len(kept):
            return
        slot_of = np.cumsum(used) - 1
        self._slots = Slots([self._slots.names[slot] for slot in kept.tolist()])
        self._numbers = self._numbers[:, kept]
        self._keys = (slot_of[self._keys >> BUCKET_BITS] << BUCKET_BITS) | (self._keys & BUCKET_MASK)
        self._code_keys = (slot_of[self._code_keys >> STATUS_BITS] << STATUS_BITS) | (self._code_keys & STATUS_MASK)
        self._open.renumber(slot_of)
        self._shown = (_EMPTY, [], [])

"""Traffic of the bridge in panes that may still receive events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from operators.kernels.panes import OpenPanes, added, stacked, unstacked
from operators.kernels.tally_rows import STATUS_BITS, STATUS_MASK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from operators.kernels.panes import Pane
    from operators.kernels.slots import Slots
    from operators.kernels.tally_rows import TallyRows

Slowest: TypeAlias = dict[int, tuple[int, int, str]]
"""By slot: latency in µs, event time in ms and trace id of the slowest request that has one."""

_MAX_PENDING_CODES: Final = 1 << 16
_BEFORE_ALL: Final = -(1 << 62)
_EMPTY: Final = np.zeros(0, np.int64)
_PREFIX: Final = "open_"
"""What tells the arrays of open panes from others of the snapshot."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Traffic of one pane.

    Attributes:
        pane: Counts, sums and buckets.
        code_keys: Shape (c,), int64, ascending: `slot << STATUS_BITS | status`.
        code_counts: Shape (c,), int64: requests.
        slowest: The slowest traced requests.
    """

    pane: Pane
    code_keys: NDArray[np.int64]
    code_counts: NDArray[np.int64]
    slowest: Slowest

    def renumbered(self, slot_of: NDArray[np.int64]) -> Traffic:
        """Give the traffic with other slot numbers; series that get the same number are merged."""
        keys = (slot_of[self.code_keys >> STATUS_BITS] << STATUS_BITS) | (self.code_keys & STATUS_MASK)
        slowest: Slowest = {}
        for slot, found in self.slowest.items():
            _keep_slowest(slowest, int(slot_of[slot]), found)
        return Traffic(self.pane.renumbered(slot_of), *added(keys, self.code_counts), slowest)


class OpenTallies:
    """Panes that may still receive events."""

    def __init__(self) -> None:
        """Start without any pane."""
        self._panes = OpenPanes()
        self._codes: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._pending: list[NDArray[np.int64]] = []
        self._pending_codes = 0
        self._slowest: dict[int, Slowest] = {}

    def add(self, rows: TallyRows, slots: Slots, closed: int | None) -> int:
        """Add rows of panes that are not closed.

        Args:
            rows: Rows of any panes.
            slots: Slots of the series; new ones get theirs.
            closed: First pane that is not closed; None when none is.

        Returns:
            How many requests were left out because their pane is closed.
        """
        late = sum(self._panes.add(part, slots, closed) for part in rows.panes)
        first = _BEFORE_ALL if closed is None else closed
        self._add_codes(rows, slots, first)
        self._add_slowest(rows, slots, first)
        return late

    def first(self) -> int | None:
        """Give the earliest pane that has traffic, None when there is none."""
        return self._panes.first()

    def pop(self, pane: int) -> Traffic | None:
        """Take a pane out, None when it had no traffic."""
        found = self._panes.pop(pane)
        if found is None:
            return None
        self._merge()
        return Traffic(found, *self._codes.pop(pane), self._slowest.pop(pane, {}))

    def slots(self) -> NDArray[np.int64]:
        """Give the slots that have traffic, in any order."""
        return self._panes.slots()

    def renumber(self, slot_of: NDArray[np.int64]) -> None:
        """Give all slots other numbers; no two get the same."""
        self._merge()
        self._panes.renumber(slot_of)
        for pane, (keys, counts) in self._codes.items():
            self._codes[pane] = added((slot_of[keys >> STATUS_BITS] << STATUS_BITS) | (keys & STATUS_MASK), counts)
        for pane, slowest in self._slowest.items():
            self._slowest[pane] = {int(slot_of[slot]): found for slot, found in slowest.items()}

    def plain(self) -> list[tuple[int, int, int, int, list[tuple[int, int, int, str]]]]:
        """Describe the panes for a snapshot: number, sizes of the arrays, and slowest requests."""
        self._merge()
        return [
            (
                pane,
                len(traffic.slots),
                len(traffic.keys),
                len(self._codes[pane][0]),
                [(slot, *found) for slot, found in self._slowest.get(pane, {}).items()],
            )
            for pane, traffic in self._panes.items()
        ]

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """Give the arrays of all panes for a snapshot, one behind the other."""
        self._merge()
        panes = self._panes.items()
        codes = [self._codes[pane] for pane, _ in panes]
        found = stacked([traffic for _, traffic in panes])
        found["code_keys"] = np.concatenate([_EMPTY, *(np.diff(keys, prepend=0) for keys, _ in codes)])
        found["code_counts"] = np.concatenate([_EMPTY, *(counts for _, counts in codes)])
        return {_PREFIX + name: array for name, array in found.items()}

    def restore(
        self,
        plain: list[tuple[int, int, int, int, list[tuple[int, int, int, str]]]],
        arrays: Mapping[str, NDArray[Any]],
    ) -> None:
        """Hold what `plain` and `arrays` gave."""
        held = {name.removeprefix(_PREFIX): array for name, array in arrays.items() if name.startswith(_PREFIX)}
        panes = unstacked([(slots, keys) for _, slots, keys, _, _ in plain], held)
        self._panes.replace([(pane, traffic) for (pane, *_), traffic in zip(plain, panes, strict=True)])
        at = 0
        for pane, _, _, codes, slowest in plain:
            self._codes[pane] = np.cumsum(held["code_keys"][at : at + codes]), held["code_counts"][at : at + codes]
            self._slowest[pane] = {slot: (latency_us, at_ms, name) for slot, latency_us, at_ms, name in slowest}
            at += codes

    def _add_codes(self, rows: TallyRows, slots: Slots, first: int) -> None:
        codes = rows.codes[:, rows.codes[1] >= first]
        if not codes.shape[1]:
            return
        keys = (slots.of_numbers(rows.series, codes[0]) << STATUS_BITS) | codes[2]
        self._pending.append(np.stack([codes[1], keys, codes[3]]))
        self._pending_codes += codes.shape[1]
        if self._pending_codes > _MAX_PENDING_CODES:
            self._merge()

    def _add_slowest(self, rows: TallyRows, slots: Slots, first: int) -> None:
        if not rows.trace_ids:
            return
        numbers = slots.of_numbers(rows.series, rows.slowest[0]).tolist()
        _, panes, latencies_us, at_ms = rows.slowest.tolist()
        for slot, pane, latency_us, at, name in zip(numbers, panes, latencies_us, at_ms, rows.trace_ids, strict=True):
            if pane >= first:
                _keep_slowest(self._slowest.setdefault(pane, {}), slot, (latency_us, at, name))

    def _merge(self) -> None:
        """Fold the appended codes into their panes."""
        if not self._pending:
            return
        panes, keys, counts = np.concatenate(self._pending, axis=1)
        self._pending, self._pending_codes = [], 0
        for pane in np.unique(panes).tolist():
            here = panes == pane
            known_keys, known_counts = self._codes.get(pane, (_EMPTY, _EMPTY))
            self._codes[pane] = added(
                np.concatenate([known_keys, keys[here]]), np.concatenate([known_counts, counts[here]])
            )


def _keep_slowest(slowest: Slowest, slot: int, found: tuple[int, int, str]) -> None:
    """Keep the slower of two requests; of equally slow ones the earlier, then the one with the smaller id."""
    known = slowest.get(slot)
    if known is None or (-found[0], found[1], found[2]) < (-known[0], known[1], known[2]):
        slowest[slot] = found

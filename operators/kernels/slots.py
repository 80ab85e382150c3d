"""Places of series in the arrays of a shard: one number for each, handed out in order of first sight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_LISTS: Final = 32
"""How many lists of series a shard remembers the slots of: one for each source of this process is enough."""

_NO_SLOTS: Final = np.zeros(0, np.int64)


class Slots:
    """Slots of the series of one shard.

    Attributes:
        names: (service, endpoint) of each slot.
    """

    def __init__(self, names: list[tuple[str, str]] | None = None) -> None:
        """Give the first slots to `names`, in their order; the list is kept."""
        self.names = [] if names is None else names
        self._slots = _Numbers(self.names)
        self._lists: dict[int, tuple[list[tuple[str, str]], NDArray[np.int64]]] = {}

    def of(self, series: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
        """Give the slot of each series; new ones get theirs.

        Returns:
            Shape (n,), int64.
        """
        return np.fromiter(map(self._slots.__getitem__, series), np.int64, len(series))

    def of_numbers(self, series: list[tuple[str, str]], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the slots of series by their numbers in a list that only grows, looking each name up once.

        Args:
            series: The same list each time that a source refers to it.
            numbers: Shape (n,): which of them.

        Returns:
            Shape (n,), int64.
        """
        # The list is kept with its slots, so that no other list gets its id.
        _, slots = self._lists.get(id(series), (series, _NO_SLOTS))
        if len(slots) < len(series):
            slots = np.concatenate([slots, np.full(max(len(series) - len(slots), len(slots)), -1)])
            if len(self._lists) >= MAX_LISTS:
                self._lists.clear()
            self._lists[id(series)] = (series, slots)
        found = slots[numbers]
        if (found < 0).any():
            new = np.unique(numbers[found < 0])
            slots[new] = self.of([series[number] for number in new.tolist()])
            found = slots[numbers]
        return found


class _Numbers(dict[tuple[str, str], int]):
    """Slots by name; asking for a new name gives it the next slot, so that hits cost no call."""

    def __init__(self, names: list[tuple[str, str]]) -> None:
        super().__init__((name, slot) for slot, name in enumerate(names))
        self._names = names

    def __missing__(self, name: tuple[str, str]) -> int:
        slot = self[name] = len(self._names)
        self._names.append(name)
        return slot

"""Integer codes for (service, endpoint) pairs, so that events are grouped by numbers and not by strings."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from operators.kernels.decode import Event

MAX_CODES: Final = 1 << 18
"""How many series a table remembers before the source starts a new one, so that churn can't grow it for ever."""


_FIRST_CODES: Final = 256


def shard_of(service: str, shards: int) -> int:
    """Place a service: all its series live in one shard.

    Args:
        service: Name of the service.
        shards: Number of shards, a constant of the deployment.

    Returns:
        Shard in [0, shards), the same on every machine and in every run.
    """
    return zlib.crc32(service.encode()) % shards


@dataclass(frozen=True, slots=True)
class Places:
    """Where the series codes of a source belong.

    A source numbers the series of each shard, so that a shard looks a series up once, and not with every frame.

    Attributes:
        shard: Shape (codes,), int64: shard of each code; -1 for the empty service, which only heartbeats have.
        number: Shape (codes,), int64: number of each code within its shard, in order of first sight.
        series: By shard, (service, endpoint) of each number. The lists only grow, so a frame may keep references.
    """

    shard: NDArray[np.int64]
    number: NDArray[np.int64]
    series: list[list[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Sightings:
    """Series that a source has seen; what it has told before it may tell again.

    Attributes:
        series: (service, endpoint) of each, length n.
        panes: The pane of each, length n.
    """

    series: list[tuple[str, str]]
    panes: list[int]


class _Endpoints(dict[str, int]):
    """Codes of the endpoints of one service; asking for a new one gives it the next code.

    A miss costs a call, a hit none: so one comprehension translates a batch, whether all of it is known or not.
    """

    def __init__(self, service: str, names: list[tuple[str, str]]) -> None:
        super().__init__()
        self._service = service
        self._names = names

    def __missing__(self, endpoint: str) -> int:
        code = self[endpoint] = len(self._names)
        self._names.append((self._service, endpoint))
        return code


class _Services(dict[str, _Endpoints]):
    """Endpoints by service; asking for a service that is new adds it."""

    def __init__(self, names: list[tuple[str, str]]) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, service: str) -> _Endpoints:
        endpoints = self[service] = _Endpoints(service, self._names)
        return endpoints


class SeriesTable:
    """A growing dictionary of series; codes are handed out in order of first sight.

    Attributes:
        names: (service, endpoint) of each code. It only grows, so a frame may keep a reference to it.
    """

    def __init__(self, shards: int) -> None:
        """Start an empty table.

        Args:
            shards: Number of shards that services are spread over.
        """
        self.names: list[tuple[str, str]] = []
        self._shards = shards
        self._codes = _Services(self.names)
        self._shard = np.zeros(_FIRST_CODES, np.int64)
        self._number = np.zeros(_FIRST_CODES, np.int64)
        self._series: list[list[tuple[str, str]]] = [[] for _ in range(shards)]
        self._placed = 0
        self._told = np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Count the series seen."""
        return len(self.names)

    def codes(self, events: Sequence[Event]) -> NDArray[np.int64]:
        """Translate events to codes; unknown series are added.

        Args:
            events: n decoded events.

        Returns:
            Shape (n,), int64.
        """
        known = self._codes
        return np.fromiter([known[event.service][event.endpoint] for event in events], np.int64, len(events))

    def places(self) -> Places:
        """Tell where the codes belong; it stays true when more are added."""
        n = len(self.names)
        if self._placed < n:
            self._place(self._placed, n)
            self._placed = n
        return Places(self._shard[:n], self._number[:n], self._series)

    def _place(self, first: int, n: int) -> None:
        """Place the codes from `first` up to `n`."""
        if n > len(self._shard):
            # New arrays: frames keep views of the old ones.
            more = np.zeros(2 * n - first, np.int64)
            self._shard = np.concatenate([self._shard[:first], more])
            self._number = np.concatenate([self._number[:first], more])
        for code in range(first, n):
            name = self.names[code]
            shard = self._shard[code] = shard_of(name[0], self._shards) if name[0] else -1
            if shard >= 0:
                self._number[code] = len(self._series[shard])
                self._series[shard].append(name)

    def untold(self, code: NDArray[np.int64], pane: NDArray[np.int64]) -> Sightings | None:
        """Find the series and panes that were not told just before, and take them as told.

        Args:
            code: Shape (n,): series of each event.
            pane: Shape (n,): pane of each event.

        Returns:
            Each pair once; None when there is nothing to tell.
        """
        if len(self._told) < len(self.names):
            more = len(self.names) - len(self._told)
            self._told = np.concatenate([self._told, np.full(max(more, len(self._told)), -1, np.int64)])
        fresh = self._told[code] != pane
        if not fresh.any():
            return None
        code, pane = code[fresh], pane[fresh]
        self._told[code] = pane
        pairs = np.unique(pane * len(self.names) + code)
        panes, codes = np.divmod(pairs, len(self.names))
        return Sightings([self.names[number] for number in codes.tolist()], panes.tolist())

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
_NO_PAIR: Final = np.uint64((1 << 64) - 1)
_PAIR_SHIFT: Final = np.uint64(32)
_PAIR_MASK: Final = np.uint64((1 << 32) - 1)
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, which spreads numbers that follow each other."""


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


class _Numbers(dict[str, int]):
    """Numbers of names in order of first sight; a miss costs a call, a hit none."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self.names)
        self.names.append(name)
        return number


class _Codes:
    """Codes of pairs of numbers: a hash table in arrays, which looks up a thousand pairs at once.

    Linear probing after multiplicative hashing (Knuth, The Art of Computer Programming 3, 6.4). Python's own
    dictionaries would cost four misses of the cache for each event when there are a hundred thousand series.
    """

    def __init__(self) -> None:
        self._pairs = np.full(_FIRST_CODES, _NO_PAIR, np.uint64)
        self._code = np.zeros(_FIRST_CODES, np.int64)
        self._known = 0

    def of(self, pairs: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Look pairs up, and give codes to new ones, in order of first sight.

        Args:
            pairs: Shape (n,).

        Returns:
            The code of each, shape (n,); and the pairs that were new, in the order of their codes.
        """
        place = self._places(pairs)
        missing = self._pairs[place] != pairs
        new = pairs[:0]
        if missing.any():
            unknown, first = np.unique(pairs[missing], return_index=True)
            new = unknown[np.argsort(first)]
            self._add(new)
            place = self._places(pairs)
        return self._code[place], new

    def _places(self, pairs: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Find where each pair is, or the free place where it would go."""
        mask = len(self._pairs) - 1
        place = ((pairs * _MULTIPLIER) >> np.uint64(64 - mask.bit_length())).astype(np.intp)
        found = self._pairs[place]
        on = np.flatnonzero((found != pairs) & (found != _NO_PAIR))
        while len(on):
            place[on] = (place[on] + 1) & mask
            found = self._pairs[place[on]]
            on = on[(found != pairs[on]) & (found != _NO_PAIR)]
        return place

    def _add(self, new: NDArray[np.uint64]) -> None:
        """Give the next codes to pairs that are not there, each once; at most half of the table is taken."""
        codes = np.arange(self._known, self._known + len(new))
        self._known += len(new)
        if 2 * self._known > len(self._pairs):
            taken = self._pairs != _NO_PAIR
            new, codes = np.concatenate([self._pairs[taken], new]), np.concatenate([self._code[taken], codes])
            size = 1 << (4 * self._known - 1).bit_length()
            self._pairs, self._code = np.full(size, _NO_PAIR, np.uint64), np.zeros(size, np.int64)
        while len(new):
            place = self._places(new)
            # Of several that found the same free place, the last is written; the others look on.
            self._pairs[place] = new
            settled = self._pairs[place] == new
            self._code[place[settled]] = codes[settled]
            new, codes = new[~settled], codes[~settled]


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
        self._services, self._endpoints, self._codes = _Numbers(), _Numbers(), _Codes()
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
        services, endpoints, n = self._services, self._endpoints, len(events)
        pairs = np.fromiter([services[event.service] for event in events], np.uint64, n)
        pairs <<= _PAIR_SHIFT
        pairs |= np.fromiter([endpoints[event.endpoint] for event in events], np.uint64, n)
        codes, new = self._codes.of(pairs)
        if len(new):
            of_service, of_endpoint = (new >> _PAIR_SHIFT).tolist(), (new & _PAIR_MASK).tolist()
            names = map(endpoints.names.__getitem__, of_endpoint)
            self.names += zip(map(services.names.__getitem__, of_service), names, strict=True)
        return codes

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
        new = self.names[first:n]
        services = {service for service, _ in new}
        shard_of_service = {service: shard_of(service, self._shards) if service else -1 for service in services}
        shards = [shard_of_service[service] for service, _ in new]
        numbers = []
        for shard, name in zip(shards, new, strict=True):
            of_shard = self._series[shard]
            numbers.append(len(of_shard))
            if shard >= 0:
                of_shard.append(name)
        self._shard[first:n], self._number[first:n] = shards, numbers

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

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
class Sightings:
    """Series that a source has seen; what it has told before it may tell again.

    Attributes:
        series: (service, endpoint) of each, length n.
        panes: The pane of each, length n.
    """

    series: list[tuple[str, str]]
    panes: list[int]


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
        self._codes: dict[str, dict[str, int]] = {}
        self._shard = np.zeros(0, np.int64)
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
        found: list[int] = []
        try:
            # Twice as fast as the generator below, which can say how far it came.
            found = [known[event.service][event.endpoint] for event in events]
        except KeyError:
            seen = iter(events)
            while len(found) < len(events):
                try:
                    # extend() keeps what came before the failure, so the event that failed has number len(found).
                    found.extend(known[event.service][event.endpoint] for event in seen)
                except KeyError:
                    missing = events[len(found)]
                    found.append(self._code(missing.service, missing.endpoint))
        return np.fromiter(found, np.int64, len(found))

    def shards(self) -> NDArray[np.int64]:
        """Give the shard of each code, shape (codes,); -1 for the empty service, which heartbeats have."""
        if len(self._shard) < len(self.names):
            fresh = [
                shard_of(service, self._shards) if service else -1 for service, _ in self.names[len(self._shard) :]
            ]
            self._shard = np.concatenate([self._shard, np.array(fresh, np.int64)])
        return self._shard

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

    def _code(self, service: str, endpoint: str) -> int:
        endpoints = self._codes.setdefault(service, {})
        code = endpoints.get(endpoint)
        if code is None:
            code = endpoints[endpoint] = len(self.names)
            self.names.append((service, endpoint))
        return code

"""Integer codes for (service, endpoint) pairs, so that events are grouped by numbers and not by strings."""

from __future__ import annotations

import zlib
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
        try:
            found = [known[event.service][event.endpoint] for event in events]
        except KeyError:
            found = [self._code(event.service, event.endpoint) for event in events]
        return np.fromiter(found, np.int64, len(found))

    def shards(self) -> NDArray[np.int64]:
        """Give the shard of each code, shape (codes,); -1 for the empty service, which heartbeats have."""
        if len(self._shard) < len(self.names):
            fresh = [
                shard_of(service, self._shards) if service else -1 for service, _ in self.names[len(self._shard) :]
            ]
            self._shard = np.concatenate([self._shard, np.array(fresh, np.int64)])
        return self._shard

    def _code(self, service: str, endpoint: str) -> int:
        endpoints = self._codes.setdefault(service, {})
        code = endpoints.get(endpoint)
        if code is None:
            code = endpoints[endpoint] = len(self.names)
            self.names.append((service, endpoint))
        return code

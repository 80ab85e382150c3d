"""The checkpointable position of a source: for each partition where to go on, and how far event time has come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from operators.kernels.codec import pack, unpack
from operators.kernels.intake import NO_TIME_MS
from operators.kernels.watermarks import ACTIVE

_KIND: Final = "source"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Position:
    """Where one partition is.

    Attributes:
        offset: Offset of the next record; None for the beginning of a partition that was never read.
        top_ms: Highest event time seen.
        mode: What the shards were last told: `active`, `idle` or `ended`.
    """

    offset: int | None = None
    top_ms: int = NO_TIME_MS
    mode: str = ACTIVE

    def at(self, **changes: int | str) -> Position:
        """Give the position with some of its fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type] # one name for fields of two types


def to_bytes(positions: dict[int, Position]) -> bytes:
    """Encode the positions of a source, by partition."""
    rows = [(number, place.offset, place.top_ms, place.mode) for number, place in positions.items()]
    return pack(_KIND, _VERSION, {"positions": rows}, {})


def from_bytes(data: bytes) -> dict[int, Position]:
    """Decode what `to_bytes` gave.

    Raises:
        StateError: The bytes are damaged or of a layout that this release does not read.
    """
    _, values, _ = unpack(_KIND, (_VERSION,), data)
    return {number: Position(offset, top_ms, mode) for number, offset, top_ms, mode in values["positions"]}

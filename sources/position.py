"""The checkpointable position of a source: for each partition where to go on, and how far event time has come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from operators.kernels.codec import pack, unpack
from operators.kernels.intake import NO_TIME_MS
from operators.kernels.watermarks import ACTIVE, Mark

if TYPE_CHECKING:
    from operators.kernels.intake import IntakeRules

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

    def mark(self, partition: int, rules: IntakeRules) -> Mark:
        """Say what the shards have to know of it."""
        return Mark(partition, rules.frontier(self.top_ms), self.top_ms, self.mode)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a source goes on from.

    Attributes:
        positions: Its positions, by partition.
        topic_id: Which topic of that name they are offsets in; None when the broker has no ids.
    """

    positions: dict[int, Position]
    topic_id: str | None = None


def to_bytes(snapshot: Snapshot) -> bytes:
    """Encode a snapshot."""
    rows = [(number, place.offset, place.top_ms, place.mode) for number, place in snapshot.positions.items()]
    return pack(_KIND, _VERSION, {"positions": rows, "topic_id": snapshot.topic_id}, {})


def from_bytes(data: bytes) -> Snapshot:
    """Decode what `to_bytes` gave.

    Raises:
        StateError: The bytes are damaged or of a layout that this release does not read.
    """
    _, values, _ = unpack(_KIND, (_VERSION,), data)
    positions = {number: Position(offset, top_ms, mode) for number, offset, top_ms, mode in values["positions"]}
    return Snapshot(positions, values["topic_id"])

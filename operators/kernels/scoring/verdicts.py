"""What a detector says about one step, and what it looked at to say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the detector says about one value of each series and signal.

    Attributes:
        score: Shape (signals, n): 1 or more beyond the edge; 0 where unknown or warming. Signals that only support
            others are left out here and below.
        edge: Shape (directions, n): the value at which the score would be 1; NaN where unknown or warming, -inf where
            the supporting signal suffices whatever the value. Upward directions of all signals come first, then the
            downward ones of the last `downward` signals.
        expected: Shape (signals, n): the expected value.
        base: Shape (signals, n): the same from the slow level.
        warming: Shape (signals, n): not enough known values yet.
    """

    score: Floats
    edge: Floats
    expected: Floats
    base: Floats
    warming: NDArray[np.bool_]


@dataclass(slots=True)
class Observation:
    """One step's values beside what was expected of them; all of shape (signals, n)."""

    value: Floats
    present: Floats
    profile: Floats | float
    expected: Floats
    scale: Floats
    widen: Floats | float


@dataclass(frozen=True, slots=True)
class Readings:
    """What the channels of a detector read of one step, before it learned it.

    Attributes:
        distance: Shape (channels, directions, n): how far each value is from where its channel expects it, in units of
            the channel's own width; signals that support others included.
        surprise: Shape (channels, directions, n): -log10 of the tail probability of each distance.
        seen: Shape (signals, n): known values before this one.
        away: Shape (signals, n): for how many steps the values have been away from the level.
    """

    distance: Floats
    surprise: Floats
    seen: Floats
    away: Floats

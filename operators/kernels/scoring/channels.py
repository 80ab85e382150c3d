"""The three channels of one step: what each measures in every direction, and where their sum crosses a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.scoring.tails import TailCurves

    Floats = NDArray[np.floating[Any]]

FARTHEST: Final = 1e6
"""Bound of every statistic, in units of scale, so that no square of one overflows single precision."""

_NEWTON_STEPS: Final = 3


@dataclass(slots=True)
class Channels:
    """Linear statistics of a directed value, one for each channel, direction and series, and how surprising they are.

    A *directed* value is the value where up is watched and its negative where down is, so that every statistic
    increases with it.

    Attributes:
        centre: Shape (channels, directions, n): the directed value at which the statistic is 0.
        width: Shape (channels, directions, n), positive: the distance from there at which it is 1.
        fits: Surprise of a statistic, same shape.
    """

    centre: Floats
    width: Floats
    fits: TailCurves

    def statistics(self, directed: Floats) -> Floats:
        """Measure directed values of shape (directions, n) in every channel."""
        return np.minimum(np.maximum((directed - self.centre) / self.width, -FARTHEST), FARTHEST)

    def crossing(self, target: Floats) -> Floats:
        """Find the directed values at which the surprises of the channels add up to a target.

        The sum reaches the target no earlier than where the first channel reaches a third of it, and no later than
        where the last one does or the first one reaches all of it. Between those Newton's method starts from below; the
        sum is mostly concave, so it approaches from there and a few steps are enough for a band. Whoever decides by the
        band and not by the sum decides what is drawn.

        Args:
            target: Shape (directions, n), positive.

        Returns:
            Shape (directions, n).
        """
        thirds = self.fits.statistic(target / len(self.centre)) * self.width + self.centre
        wholes = self.fits.statistic(target) * self.width + self.centre
        left = thirds.min(axis=0)
        right = np.minimum(thirds.max(axis=0), wholes.min(axis=0))
        value: Floats = left
        for _ in range(_NEWTON_STEPS):
            statistic = (value - self.centre) / self.width
            missing = target - self.fits.surprise(statistic).sum(axis=0)
            slope = (self.fits.slope(statistic) / self.width).sum(axis=0)
            value = np.minimum(np.maximum(value + missing / slope, left), right)
        return value

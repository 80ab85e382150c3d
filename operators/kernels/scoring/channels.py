"""The channels of one step: what each measures in every direction, and where their surprises add up to a target."""

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

_NEWTON_STEPS: Final = 2


@dataclass(slots=True)
class Channels:
    """Linear statistics of a directed value, one for each channel, direction and series.

    A *directed* value is the value where up is watched and its negative where down is, so that every statistic
    increases with it.

    Attributes:
        centre: Shape (channels, directions, n): the directed value at which the statistic is 0.
        width: Shape (channels, directions, n), positive: the distance from there at which it is 1.
    """

    centre: Floats
    width: Floats

    def statistics(self, directed: Floats) -> Floats:
        """Measure directed values of shape (directions, n) in every channel."""
        statistics = directed - self.centre
        statistics /= self.width
        np.minimum(np.maximum(statistics, -FARTHEST, out=statistics), FARTHEST, out=statistics)
        return statistics

    def rows(self, first: int) -> Channels:
        """Return the directions from `first` on, as views."""
        return Channels(self.centre[:, first:], self.width[:, first:])

    def crossing(self, fits: TailCurves, target: Floats) -> Floats:
        """Find the directed values at which the surprises of the channels add up to a target.

        The sum can't reach the target before the first channel reaches a third of it; there Newton's method starts. The
        sum is mostly concave, so it approaches from below, and two steps come within a tenth of a scale nine times
        in ten (measured against bisection). That is enough for a band, as long as the band is what decides.

        Args:
            fits: How surprising a statistic is, shape (channels, directions, n).
            target: Shape (directions, n), positive.

        Returns:
            Shape (directions, n).
        """
        per_width = 1 / self.width
        thirds = fits.statistic(target * (1 / len(self.centre)))
        thirds *= self.width
        thirds += self.centre
        first: Floats = np.minimum.reduce(thirds, axis=0)
        value = first
        for _ in range(_NEWTON_STEPS):
            surprise, slope = fits.surprise_and_slope((value - self.centre) * per_width)
            slope *= per_width
            missing = target - np.add.reduce(surprise, axis=0)
            missing /= np.add.reduce(slope, axis=0)
            value = np.maximum(value + missing, first)
        return value

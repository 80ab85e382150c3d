"""The channels of one step: what each measures in every direction, and where the first of them is surprised enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

FARTHEST: Final = 1e6
"""Bound of every statistic, in units of scale, so that no square of one overflows single precision."""


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

    def first_reaching(self, statistics: Floats) -> Floats:
        """Find the lowest directed values at which some channel has the given statistic: shape (directions, n)."""
        values = statistics * self.width
        values += self.centre
        lowest: Floats = np.minimum.reduce(values, axis=0)
        return lowest

    def rows(self, directions: slice) -> Channels:
        """Return some of the directions, as views."""
        return Channels(self.centre[:, directions], self.width[:, directions])

"""Distance to the nearest earlier pattern: an optional channel for chosen series, dear and good at odd shapes.

The last values of a series are compared with every run of as many values in its memory. A run whose nearest neighbour
is several times as far away as is usual for the series is a pattern it has not shown. After Burnaev and Ishimtsev,
"Conformalized density- and distance-based anomaly detection in time-series data" (2016), with distances of level and
of shape, and with the usual distance of the series in place of their conformal scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEEP_SHARE: Final = 0.15
"""Ranges of a run below this part of the range of the series count as flat, or noise would pass for shape."""

_SMALLEST_USUAL: Final = 0.01
"""Usual distances below one hundredth of the range are taken as that."""

_LARGEST_VALUE: Final = 1e15


@dataclass(frozen=True, slots=True)
class NeighboursConfig:
    """What is compared.

    Attributes:
        length: Values of a run.
        memory: Runs that are remembered of each series.
        warm_runs: Runs that must be in memory before any is judged.
        shape_weight: What the distance in shape counts for beside the distance in level.
        usual_runs: Memory of the usual distance.
        ratio: How many times the usual distance has a score of 1.
    """

    length: int = 8
    memory: int = 1000
    warm_runs: int = 40
    shape_weight: float = 0.35
    usual_runs: int = 200
    ratio: float = 2.6


class Neighbours:
    """Scores the last values of each series by their nearest neighbour in its past; n series at once.

    State is 64 KiB a series, a step about 20 µs a series.
    """

    def __init__(self, config: NeighboursConfig, series: int) -> None:
        """Start with an empty memory for n series."""
        self.config = config
        self._recent = np.zeros((series, config.length))
        self._levels = np.full((series, config.length, config.memory), np.inf, np.float32)
        self._shapes = np.zeros_like(self._levels)
        self._known = np.zeros(series, np.int64)
        self._lowest = np.full(series, np.inf)
        self._highest = np.full(series, -np.inf)
        self._usual = np.zeros(series)
        self._judged = np.zeros(series, np.int64)

    def step(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score one value of each series, then remember it.

        Args:
            values: Shape (n,); a value that is not finite is unknown and leaves its series as it was.

        Returns:
            Shape (n,): 1 or more where the run that ends here is new; 0 where unknown or warming.
        """
        score = np.zeros(len(values))
        rows = np.flatnonzero(np.isfinite(values))
        value = np.clip(values[rows], -_LARGEST_VALUE, _LARGEST_VALUE)
        self._recent[rows, :-1] = self._recent[rows, 1:]
        self._recent[rows, -1] = value
        self._lowest[rows] = np.minimum(self._lowest[rows], value)
        self._highest[rows] = np.maximum(self._highest[rows], value)
        self._known[rows] += 1
        rows = rows[self._known[rows] >= self.config.length]
        if len(rows):
            score[rows] = self._judge(rows)
        return score

    def _judge(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        config = self.config
        scale = self._highest[rows] - self._lowest[rows]
        scale += 1e-3 * np.abs(self._highest[rows]) + 1e-12
        level = (self._recent[rows]).astype(np.float32)
        shape = _shape(self._recent[rows], scale).astype(np.float32)
        stored = self._known[rows] - config.length
        distance = self._distances(rows, level, shape, scale, stored).min(axis=1)
        ready = stored - config.length >= config.warm_runs
        score = np.where(ready, distance / (self._usual[rows] + _SMALLEST_USUAL) / config.ratio, 0.0)
        self._learn_usual(rows, distance)
        place = stored % config.memory
        self._levels[rows, :, place] = level
        self._shapes[rows, :, place] = shape
        return score

    def _distances(
        self,
        rows: NDArray[np.intp],
        level: NDArray[np.float32],
        shape: NDArray[np.float32],
        scale: NDArray[np.float64],
        stored: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Return the distance to each remembered run: shape (rows, memory), infinite for those that share values."""
        config = self.config
        by_level = np.abs(self._levels[rows] - level[:, :, None]).mean(axis=1) / scale[:, None]
        by_shape = np.abs(self._shapes[rows] - shape[:, :, None]).mean(axis=1)
        distance: NDArray[np.float64] = by_level + config.shape_weight * by_shape
        every = np.arange(len(rows))
        for back in range(1, config.length + 1):
            shares = stored >= back
            distance[every[shares], (stored[shares] - back) % config.memory] = np.inf
        return distance

    def _learn_usual(self, rows: NDArray[np.intp], distance: NDArray[np.float64]) -> None:
        """Follow the mean of the distances, of which the far ones count for four times the usual."""
        found = np.isfinite(distance)
        rows, distance = rows[found], distance[found]
        usual, judged = self._usual[rows], self._judged[rows]
        most = np.where(judged > self.config.warm_runs / 4, 4 * usual + _SMALLEST_USUAL, np.inf)
        pace = 1 / np.minimum(judged + 1, self.config.usual_runs)
        self._usual[rows] = usual + (np.minimum(distance, most) - usual) * pace
        self._judged[rows] += 1


def _shape(runs: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stretch each run to its own range, or less where it is nearly flat; shape (rows, length)."""
    above = runs - runs.min(axis=1, keepdims=True)
    stretched: NDArray[np.float64] = above / (above.max(axis=1, keepdims=True) + _STEEP_SHARE * scale[:, None])
    return stretched

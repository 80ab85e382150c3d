"""Distance to the nearest earlier pattern: an optional channel for chosen series, dear and good at odd shapes.

The last values of a series are compared with every run of as many values in its memory. A run whose nearest neighbour
is several times as far away as is usual for the series is a pattern it has not shown. After Burnaev and Ishimtsev,
"Conformalized density- and distance-based anomaly detection in time-series data" (2016), with distances of level and
of shape, and with the usual distance of the series in place of their conformal scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.kernels.codec import StateError, pack, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KIND: Final = "neighbours"
_VERSION: Final = 1

_STEEP_SHARE: Final = 0.15
"""Ranges of a run below this part of the range of the series count as flat, or noise would pass for shape."""

_SMALLEST_USUAL: Final = 0.01
"""Usual distances below one hundredth of the range are taken as that."""

_LARGEST_VALUE: Final = 1e15

_STATE: Final = ("recent", "levels", "shapes", "known", "stored", "lowest", "highest", "usual", "judged")
"""Arrays of the state, a row for each series."""


@dataclass(frozen=True, slots=True)
class NeighboursConfig:
    """What is compared.

    Attributes:
        length: Values of a run.
        overlap: Steps that share data with a step: a run takes every so-manieth value, and every
            so-manieth run is remembered.
        memory: Runs that are remembered of each series.
        warm_runs: Runs that must be in memory before any is judged.
        shape_weight: What the distance in shape counts for beside the distance in level.
        usual_runs: Memory of the usual distance.
        ratio: How many times the usual distance has a score of 1.
    """

    length: int = 8
    overlap: int = 1
    memory: int = 1000
    warm_runs: int = 40
    shape_weight: float = 0.35
    usual_runs: int = 200
    ratio: float = 2.6


class Neighbours:
    """Scores the last values of each series by their nearest neighbour in its past; n series at once.

    State is 64 KiB a series, a step about 20 µs a series.
    """

    def __init__(self, config: NeighboursConfig, series: int = 0) -> None:
        """Start with an empty memory for n series."""
        self.config = config
        self._recent = np.zeros((series, (config.length - 1) * config.overlap + 1))
        self._levels = np.full((series, config.length, config.memory), np.inf, np.float32)
        self._shapes = np.full_like(self._levels, np.inf)
        self._known = np.zeros(series, np.int64)
        self._stored = np.zeros(series, np.int64)
        self._lowest = np.full(series, np.inf)
        self._highest = np.full(series, -np.inf)
        self._usual = np.zeros(series)
        self._judged = np.zeros(series, np.int64)

    @property
    def warming(self) -> NDArray[np.bool_]:
        """Shape (n,): whether a series has too few runs in memory to be judged."""
        return self._stored - self.config.length < self.config.warm_runs

    def align(self, carry: NDArray[np.int64]) -> None:
        """Reorder, drop and add series; see `Detector.align`."""
        fresh = Neighbours(self.config, 1)
        for name, array in self._arrays().items():
            held = getattr(fresh, f"_{name}")
            setattr(self, f"_{name}", np.concatenate((array, held)).take(carry, axis=0))

    def step(self, values: NDArray[np.float64], step: int = 0) -> NDArray[np.float64]:
        """Score one value of each series, then remember it.

        Args:
            values: Shape (n,); a value that is not finite is unknown and leaves its series as it was.
            step: Number of this step, rising by one; needed only where steps share data.

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
        rows = rows[self._known[rows] >= self._recent.shape[1]]
        if len(rows):
            score[rows] = self._judge(rows, learns=step % self.config.overlap == 0)
        return score

    def to_bytes(self) -> bytes:
        """Encode the state of all series."""
        return pack(_KIND, _VERSION, {}, self._arrays())

    @classmethod
    def from_bytes(cls, config: NeighboursConfig, data: bytes) -> Neighbours:
        """Resume from what `to_bytes` wrote under the same configuration.

        Raises:
            StateError: The bytes are no such state, or of runs of another length.
        """
        _, _, arrays = unpack(_KIND, (_VERSION,), data)
        found = cls(config)
        for name, array in found._arrays().items():
            if arrays[name].shape[1:] != array.shape[1:]:
                msg = f"`neighbours` state has other runs than the configuration: {name} is {arrays[name].shape[1:]}"
                raise StateError(msg)
            setattr(found, f"_{name}", arrays[name])
        return found

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, f"_{name}") for name in _STATE}

    def _judge(self, rows: NDArray[np.intp], *, learns: bool) -> NDArray[np.float64]:
        config = self.config
        run = self._recent[rows, :: config.overlap]
        scale = self._highest[rows] - self._lowest[rows]
        scale += 1e-3 * np.abs(self._highest[rows]) + 1e-12
        level = run.astype(np.float32)
        shape = _shape(run, scale).astype(np.float32)
        stored = self._stored[rows]
        distance = self._distances(rows, level, shape, scale, stored).min(axis=1)
        ready = stored - config.length >= config.warm_runs
        score = np.where(ready, distance / (self._usual[rows] + _SMALLEST_USUAL) / config.ratio, 0.0)
        if learns:
            self._learn_usual(rows, distance)
            place = stored % config.memory
            self._levels[rows, :, place] = level
            self._shapes[rows, :, place] = shape
            self._stored[rows] += 1
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

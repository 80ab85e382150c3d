"""How far the surprises of a series are to be believed: those of a restless one are tempered.

A tail fit assumes that a series goes on as it was. Where bursts are the rule, or a level is held for days and then
left, the tails never settle, and the same series is surprised far beyond any probability again and again. So the
surprises themselves have a tail fit: from it follows the surprise that one in a thousand independent values exceeds.
Where that is more than usual, all surprises of the series are scaled down by the same factor. Their order stays, and
so do the closed forms of the edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.kernels.scoring.tails import TailConfig, curves, learn, starting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

_ONE_IN_A_THOUSAND: Final = 3.0
_PRIOR_THRESHOLD: Final = 1.8
_PRIOR_SHAPE: Final = 0.02
_LEAST_THRESHOLD: Final = 0.3


class Temper:
    """Factors in (0, 1] on the surprises of every series and direction.

    Attributes:
        tails: Shape (PARAMETERS, directions, n): fits of the surprises.
    """

    def __init__(self, config: TailConfig, usual: float | None, fresh: Floats) -> None:
        """Start without series.

        Args:
            config: How the fits are made.
            usual: The surprise that one in a thousand values of a calm series may exceed; None tempers nothing.
            fresh: Fits of a series that nothing is known of, see `fresh_fits`.
        """
        self._config = config
        self._usual = usual
        self._fresh = fresh
        self.tails: Floats = fresh[..., :0]
        self._factor: Floats | None = None

    def align(self, carry: NDArray[np.int64]) -> None:
        """Reorder, drop and add series; see `Detector.align`."""
        self.tails = np.concatenate((self.tails, self._fresh), axis=-1).take(carry, axis=-1)
        self._factor = None

    def restore(self, tails: Floats | None, series: int) -> None:
        """Take over fits, or begin anew where there are none."""
        usable = tails is not None and tails.shape[:-1] == self._fresh.shape[:-1]
        self.tails = tails if tails is not None and usable else np.repeat(self._fresh, series, axis=-1)
        self._factor = None

    def factor(self) -> Floats:
        """Return the factors, shape (directions, n) or (directions, 1); they hold until the next `learn`."""
        if self._usual is None:
            return np.ones((self._fresh.shape[1], 1), self._fresh.dtype)
        if self._factor is None:
            fits = curves(self._config, self.tails, np.full((1, 1), _PRIOR_SHAPE, self.tails.dtype))
            reached = fits.statistic(np.full((1, 1), _ONE_IN_A_THOUSAND, self.tails.dtype))
            self._factor = np.minimum(self._usual / reached, 1)
        return self._factor

    def learn(self, surprise: Floats, *, weight: Floats, age: Floats) -> None:
        """Learn the surprises of a step, before they are tempered.

        Args:
            surprise: Shape (directions, n).
            weight: Shape (directions, n): 1 where the value is known, else 0.
            age: Shape (directions, n): independent values seen before.
        """
        if self._usual is None:
            return
        least = np.full((1, 1), _LEAST_THRESHOLD, self.tails.dtype)
        learn(self._config, self.tails, surprise, least=least, weight=weight, age=age)
        self._factor = None


def fresh_fits(config: TailConfig, usual: float | None, directions: int, dtype: np.dtype[Any]) -> Floats:
    """Make the fits of one series that nothing is known of: shape (PARAMETERS, directions, 1), or (0, …) without.

    Their excesses are such that the series counts as calm.
    """
    if usual is None:
        return np.zeros((0, directions, 1), dtype)
    beyond = (config.rate * 10**_ONE_IN_A_THOUSAND) ** _PRIOR_SHAPE
    excess = (usual - _PRIOR_THRESHOLD) * _PRIOR_SHAPE / ((1 - _PRIOR_SHAPE) * (beyond - 1))
    fresh = starting(config, np.array([_PRIOR_THRESHOLD]), np.array([excess]))
    return np.repeat(fresh[:, :, None], directions, axis=1).astype(dtype)

"""Streaming tail fits: how unlikely is a statistic, judged by the largest values that its own series has shown.

Peaks over threshold after Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory" (KDD 2017), without
their stored peaks and their optimiser: the threshold is a stochastic quantile, the generalised Pareto tail is fitted by
the moments of the excesses, and its shape is shrunk to an exponential while the excesses are few. All fits of all
series are one array, so an update costs the same number of NumPy calls whatever their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

THRESHOLD: Final = 0
MEAN_EXCESS: Final = 1
MEAN_SQUARE: Final = 2
EXCESSES: Final = 3
RATE: Final = 4
PARAMETERS: Final = 5
"""Rows of a tail array: threshold, mean and mean square of the excesses, their number, and how often they occur."""

_LN10: Final = 2.302585092994046

_SMALLEST_RATE: Final = 1e-3
_LIGHTEST_SHAPE: Final = 0.01
_LARGEST_EXPONENT: Final = 40.0


@dataclass(frozen=True, slots=True)
class TailConfig:
    """How tails are fitted.

    Attributes:
        rate: Fraction of values that should exceed the threshold, in (0, 0.5).
        memory: Independent values after which a value has lost most of its weight on the threshold and the rate.
        excess_memory: Excesses after which an excess has lost most of its weight on the moments.
        prior_values: Independent values that the prior threshold and rate are worth.
        prior_excesses: Excesses that the prior moments are worth, and at which the fitted shape gets half its weight.
        heaviest_shape: Upper bound of the fitted shape.
    """

    rate: float = 0.02
    memory: float = 2000.0
    excess_memory: float = 60.0
    prior_values: float = 50.0
    prior_excesses: float = 30.0
    heaviest_shape: float = 0.5


@dataclass(slots=True)
class TailCurves:
    """The surprise, -log10 of the tail probability, as a function of the statistic, for every fit.

    It is linear from 0 at 0 to `knee` at `threshold`, and logarithmic above: continuous and strictly increasing, so
    that it can be inverted. All arrays have the shape of the fits.

    Attributes:
        threshold: Where the tail begins.
        knee: Surprise at the threshold.
        rise: Slope below the threshold.
        bend: Shape over scale of the generalised Pareto tail.
        gain: 1 / (shape * ln 10): surprise for each unit of the tail's logarithm.
    """

    threshold: Floats
    knee: Floats
    rise: Floats
    bend: Floats
    gain: Floats

    def surprise(self, statistic: Floats) -> Floats:
        """Return -log10 of the tail probability of each statistic; 0 at and below 0."""
        body = np.minimum(np.maximum(statistic, 0), self.threshold)
        tail = np.maximum(statistic - self.threshold, 0)
        tail *= self.bend
        tail += 1
        np.log(tail, out=tail)
        tail *= self.gain
        body *= self.rise
        body += tail
        return body

    def statistic(self, surprise: Floats) -> Floats:
        """Return the statistic that has the given surprise (the inverse of `surprise`)."""
        above = np.maximum(surprise - self.knee, 0) / self.gain
        np.minimum(above, _LARGEST_EXPONENT, out=above)
        np.exp(above, out=above)
        above -= 1
        above /= self.bend
        above += np.minimum(surprise / self.rise, self.threshold)
        return above

    def rows(self, directions: slice) -> TailCurves:
        """Return the curves of some of the directions, as views; the fits have the shape (channels, directions, n)."""
        parts = (self.threshold, self.knee, self.rise, self.bend, self.gain)
        return TailCurves(*(part[:, directions] for part in parts))


def starting(config: TailConfig, thresholds: NDArray[np.float64], excesses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return tails as they are before any value.

    Args:
        config: How the tails are fitted.
        thresholds: Shape (fits,): the prior thresholds.
        excesses: Shape (fits,): the prior means of the excesses, taken as exponential.

    Returns:
        Shape (PARAMETERS, fits).
    """
    zeros = np.zeros_like(excesses)
    return np.stack((thresholds, excesses, 2 * excesses * excesses, zeros, zeros + config.rate))


def curves(config: TailConfig, tails: Floats, prior_shape: Floats) -> TailCurves:
    """Derive the surprise functions from fitted tails.

    Args:
        config: How the tails are fitted.
        tails: Shape (PARAMETERS, ...), see the row constants.
        prior_shape: Broadcastable to (...): shape of a tail without excesses; near 0 is exponential.

    Returns:
        Curves whose arrays have the shape of `tails` without its first axis.
    """
    threshold, mean, square, excesses, rate = tails
    variance = square - mean * mean
    fitted = 0.5 - 0.5 * (mean * mean) / np.maximum(variance, mean * mean * 0.01)
    trust = excesses / (excesses + config.prior_excesses)
    shape = prior_shape + trust * (fitted - prior_shape)
    shape = np.minimum(np.maximum(shape, _LIGHTEST_SHAPE), config.heaviest_shape)
    knee = -np.log10(rate)
    bend = shape / (mean * (1 - shape))
    gain = 1 / (shape * _LN10)
    return TailCurves(threshold.copy(), knee, knee / threshold, bend, gain)


def learn(config: TailConfig, tails: Floats, statistic: Floats, *, least: Floats, weight: Floats, age: Floats) -> None:
    """Update tails in place with one statistic each.

    Args:
        config: How the tails are fitted.
        tails: Shape (PARAMETERS, ...).
        statistic: Shape (...): the new values, finite.
        least: Broadcastable to (...), positive: thresholds never fall below it, or a constant series would find nothing
            too small to be a surprise.
        weight: Broadcastable to (...), in [0, 1]: what part of an independent value each is; 0 leaves a fit alone.
        age: Broadcastable to (...): independent values seen before.
    """
    threshold, mean, square, excesses, rate = tails
    excess = np.minimum(np.maximum(statistic - threshold, 0), mean * 8)
    exceeds = np.sign(excess)
    step = weight / np.minimum(age + config.prior_values, config.memory)
    drift = exceeds - config.rate
    np.maximum(threshold + drift * mean * step * (1 / config.rate), least, out=threshold)
    np.maximum(rate + (exceeds - rate) * step, _SMALLEST_RATE, out=rate)
    counted = exceeds * weight
    share = counted / np.minimum(excesses + (config.prior_excesses + 1), config.excess_memory)
    mean += (excess - mean) * share
    square += (excess * excess - square) * share
    excesses += counted

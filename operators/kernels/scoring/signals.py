"""From windows to what the detector watches, and from its edges back to bands in the units of a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.frames import SIGNALS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.frames import WindowFrame
    from operators.kernels.scoring.config import ScoringConfig
    from operators.kernels.scoring.verdicts import Verdicts

LATENCY, ERRORS, TRAFFIC = range(3)

_SMALLEST_SCALE: Final = 0.02
"""Two percent: quantiles come from buckets 1% wide, so a smaller scale would judge the buckets."""

_FARTHEST_LOG: Final = 40.0

JUST_BELOW_ONE: Final = 1 - 1e-6
"""Score of a value that is improbable enough but not outside its band."""

_GATE_PREFIXES: Final = ("latency", "errors", "traffic_rise")
_GATE_UNITS: Final = ("_ms", "", "_per_s")
"""Parts of the names of the gates in `ScoringConfig`, by signal."""


@dataclass(frozen=True, slots=True)
class Measures:
    """The signals of one frame.

    Attributes:
        natural: Shape (3, n): P99 in milliseconds, error ratio, requests per second; NaN where unknown.
        watched: Shape (4, n): P90, which supports P99, and the above, on scales where deviations have about the same
            size everywhere: log(1 + x) of latencies and traffic, arcsin(sqrt(x)) of the error ratio.
        widen: Shape (4, n): how much wider than usual the sampling noise of so few requests is.
        floor: Shape (4, n): the smallest scale: two percent, and the binomial noise of the error ratio.
        requests: Shape (n,): requests of each window, at least 1.
        credit: Shape (1, n): how much the P99 of so few requests is worth without P90.
    """

    natural: NDArray[np.float64]
    watched: NDArray[np.float64]
    widen: NDArray[np.float64]
    floor: NDArray[np.float64]
    requests: NDArray[np.int64]
    credit: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gate:
    """How far a value must be from what was expected before its probability counts.

    Attributes:
        name: The setting that it comes from.
        direction: `up` or `down`.
        edge: The value that has to be passed, in the unit of the signal.
        passed: Whether it was.
    """

    name: str
    direction: str
    edge: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Bands:
    """The verdict in natural units; all of shape (3, n), NaN as in `ScoredFrame`."""

    score: NDArray[np.float64]
    expected: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


def measure(frame: WindowFrame, config: ScoringConfig, length_ms: int) -> Measures:
    """Compute the signals of a frame.

    Latencies are unknown below `min_count` requests, the error ratio of no requests is unknown, traffic is always
    known.
    """
    count = frame.count
    requests = np.maximum(count, 1)
    natural = np.empty((len(SIGNALS), len(count)))
    np.multiply(frame.p99_us, 1e-3, out=natural[LATENCY])
    natural[LATENCY, count < config.min_count] = np.nan
    np.divide(frame.errors, requests, out=natural[ERRORS])
    natural[ERRORS, count == 0] = np.nan
    np.multiply(count, 1000 / length_ms, out=natural[TRAFFIC])
    watched = np.empty((1 + len(SIGNALS), len(count)))
    np.multiply(frame.p90_us, 1e-3, out=watched[0])
    watched[0, count < config.min_count] = np.nan
    watched[1:] = natural
    watched[1 + ERRORS] = 0
    np.log1p(watched, out=watched)
    np.arcsin(np.sqrt(natural[ERRORS]), out=watched[1 + ERRORS])
    widen = np.empty_like(watched)
    np.sqrt(config.count_scale / requests + 1, out=widen[0])
    widen[1 : 1 + TRAFFIC] = widen[0]
    widen[1 + TRAFFIC] = 1
    floor = np.empty_like(watched)
    floor.fill(_SMALLEST_SCALE)
    np.maximum(0.5 / np.sqrt(requests), _SMALLEST_SCALE, out=floor[1 + ERRORS])
    credit = np.minimum(requests * (1 / config.full_count), 1)[None]
    return Measures(natural, watched, widen, floor, requests, credit)


class Banding:
    """Turns verdicts into bands that decide: a known value outside its band has a score of 1 or more, no other has."""

    def __init__(self, config: ScoringConfig) -> None:
        """Collect the gates: how far from its expectation a value must be, whatever its probability."""
        rises = (
            (config.latency_min_ms, config.latency_min_ratio),
            (config.errors_min, config.errors_min_ratio),
            (config.traffic_rise_min_per_s, config.traffic_rise_min_ratio),
        )
        self._rise = np.array([rise for rise, _ in rises])[:, None]
        self._rise_ratio = np.array([ratio for _, ratio in rises])[:, None]
        self._errors = config.errors_min_count
        self._drop = config.traffic_drop_min_per_s
        self._drop_ratio = config.traffic_drop_min_ratio

    def apply(self, measures: Measures, verdicts: Verdicts) -> Bands:
        """Convert edges to natural units, apply the gates, and settle the scores by the bands.

        Gates are measured from the expectation or from the slow level, whichever is nearer to the value: coming back
        from an excursion that was absorbed is no news.
        """
        signals = len(measures.natural)
        expected, base, upper = _natural(np.stack((verdicts.expected, verdicts.base, verdicts.edge[:signals])))
        gate_upper, gate_lower = self._edges(measures, expected, base)
        upper = np.maximum(upper, gate_upper)
        np.minimum(upper[ERRORS], 1, out=upper[ERRORS])
        lower = np.empty_like(upper)
        lower.fill(np.nan)
        edge = np.expm1(verdicts.edge[signals], dtype=np.float64)
        np.maximum(np.minimum(edge, gate_lower), 0, out=lower[TRAFFIC])
        outside = (measures.natural > upper) | (measures.natural < lower)
        score = np.minimum(verdicts.score, JUST_BELOW_ONE)
        score = np.where(outside, np.maximum(verdicts.score, 1), score)
        return Bands(score, expected, lower, upper)

    def far(self, measures: Measures, verdicts: Verdicts) -> NDArray[np.bool_]:
        """Tell which values have passed all gates of a direction: shape (3, n)."""
        expected, base = _natural(np.stack((verdicts.expected, verdicts.base)))
        upper, lower = self._edges(measures, expected, base)
        far: NDArray[np.bool_] = measures.natural > upper
        far[TRAFFIC] |= measures.natural[TRAFFIC] < lower
        return far

    def _edges(
        self, measures: Measures, expected: NDArray[np.float64], base: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the values that the gates ask for: upwards of shape (3, n), downwards, for traffic, of shape (n,)."""
        highest = np.maximum(expected, base)
        upper = highest + np.maximum(highest * self._rise_ratio, self._rise)
        fewest = (self._errors - 0.5) / measures.requests
        np.maximum(upper[ERRORS], fewest, out=upper[ERRORS])
        lowest = np.minimum(expected[TRAFFIC], base[TRAFFIC])
        return upper, lowest - np.maximum(lowest * self._drop_ratio, self._drop)

    def gates(self, measures: Measures, verdicts: Verdicts, row: int) -> tuple[tuple[Gate, ...], ...]:
        """Tell which gates one series has passed: for each signal those that `apply` has built into its band."""
        signals = len(measures.natural)
        expected, base = _natural(np.stack((verdicts.expected[:, row], verdicts.base[:, row]))[..., None])[..., 0]
        told: list[tuple[Gate, ...]] = []
        for number, prefix in zip(range(signals), _GATE_PREFIXES, strict=True):
            value = float(measures.natural[number, row])
            highest = max(float(expected[number]), float(base[number]))
            edges = [
                (f"{prefix}_min{_GATE_UNITS[number]}", highest + float(self._rise[number, 0])),
                (f"{prefix}_min_ratio", highest * (1 + float(self._rise_ratio[number, 0]))),
            ]
            if number == ERRORS:
                edges.append(("errors_min_count", (self._errors - 0.5) / float(measures.requests[row])))
            gates = [Gate(name, "up", edge, value > edge) for name, edge in edges]
            if number == TRAFFIC:
                lowest = min(float(expected[number]), float(base[number]))
                drops = (("_per_s", lowest - self._drop), ("_ratio", lowest * (1 - self._drop_ratio)))
                gates += [Gate(f"traffic_drop_min{unit}", "down", edge, value < edge) for unit, edge in drops]
            told.append(tuple(gates))
        return tuple(told)


def _natural(watched: NDArray[np.floating]) -> NDArray[np.float64]:
    """Invert the scales of `Measures.watched`; shape (..., 3, n)."""
    natural: NDArray[np.float64] = np.expm1(np.minimum(np.maximum(watched, 0), _FARTHEST_LOG), dtype=np.float64)
    natural[..., ERRORS, :] = np.sin(np.minimum(np.maximum(watched[..., ERRORS, :], 0), np.pi / 2)) ** 2
    return natural

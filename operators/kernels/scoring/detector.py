"""The default detector: seasonal residual, jump and record novelty, each judged by the tail of its own series.

Every series and signal is watched in one or two *directions*. In each direction three channels measure how far the
value has gone: from the expected level (residual), from the mean of the windows just before (jump), and beyond the
largest value so far (record). A streaming tail fit turns each into a surprise, -log10 of its tail probability. The most
surprised channel decides: unlike a sum of surprises, the largest needs no independence. Over `DetectorConfig.surprise`,
it is the score. In its direction each surprise is increasing, so the value at which the score is 1 exists, is unique
and has a closed form: it is the edge of the band that is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.kernels.codec import StateError, pack, unpack
from operators.kernels.scoring.channels import Channels
from operators.kernels.scoring.season import Season
from operators.kernels.scoring.tails import TailCurves, curves, learn, starting
from operators.kernels.scoring.verdicts import Observation, Readings, Verdicts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.scoring.detector_config import DetectorConfig

    Floats = NDArray[np.floating[Any]]

DAYS_OF_WEEK: Final = 7

CHANNELS: Final = ("residual", "jump", "record")
"""What is measured in each direction, in the order of the first axis of the channel arrays."""

_KIND: Final = "detector"
_VERSION: Final = 3

_LEVEL, _BASE, _SPREAD, _SETTLED, _SEEN, _SPREAD_AGE, _RECENT, _HIGHEST, _LOWEST, _AWAY, _RING = range(11)
"""Rows of the level array; from `_RING` on the values of the last steps, which the current one shares data with.

The first three rows are means, the next three the number of steps that each is made of: one expression updates all.
The lowest value is held negated, so that one expression updates both ends.
"""

_SPREAD_TO_SCALE: Final = 1.2533
"""Standard deviation of a Gaussian over its mean absolute deviation."""

_LARGEST_VALUE: Final = 1e15
_UNBOUNDED: Final = 1e9

_PRIOR_THRESHOLDS: Final = (2.2, 2.0, 0.1)
_PRIOR_EXCESSES: Final = (0.45, 0.45, 0.2)
_PRIOR_SHAPES: Final = (0.02, 0.02, 0.02)
_LEAST_THRESHOLDS: Final = (0.5, 0.5, 0.02)
"""Per channel: where tails begin before anything is known, their mean excess and shape, and the lowest beginning."""


class Detector:
    """Scores one value of each series and signal a step, arrays over all series.

    State is three arrays of shape (rows, signals or directions, series) and the seasons; its size does not depend on
    the number of steps.
    """

    def __init__(self, config: DetectorConfig) -> None:
        """Start without series."""
        self.config = config
        self._dtype = np.dtype(np.float32 if config.single_precision else np.float64)
        self._fresh_levels = self._make_fresh_levels()
        self._fresh_tails = self._make_fresh_tails()
        self._levels: Floats = self._fresh_levels[..., :0]
        self._tails: Floats = self._fresh_tails[..., :0]
        self._season = Season(config.season, config.steps_per_day)
        self._week = Season(config.week, DAYS_OF_WEEK * config.steps_per_day)
        self._fits: TailCurves | None = None
        memories = (config.level_windows, config.base_windows, config.spread_windows)
        self._memories = (np.array(memories, self._dtype) * config.overlap).reshape(-1, 1, 1)
        self._reaching: Floats = self._tails[0]
        self._prior_shape = np.array(_PRIOR_SHAPES, self._dtype).reshape(-1, 1, 1)
        self._least = np.array(_LEAST_THRESHOLDS, self._dtype).reshape(-1, 1, 1)

    @property
    def series(self) -> int:
        """Number of series that state is held for."""
        return int(self._levels.shape[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of state in memory."""
        return self._levels.nbytes + self._tails.nbytes + self._season.nbytes + self._week.nbytes

    def align(self, carry: NDArray[np.int64]) -> None:
        """Reorder, drop and add series.

        Args:
            carry: Shape (n,): for each row from now on the row it had, or -1 for a new series.
        """
        self._levels = np.concatenate((self._levels, self._fresh_levels), axis=-1).take(carry, axis=-1)
        self._tails = np.concatenate((self._tails, self._fresh_tails), axis=-1).take(carry, axis=-1)
        self._season.align(carry)
        self._week.align(carry)
        self._fits = None

    def step(
        self,
        values: Floats,
        *,
        widen: Floats | float,
        floor: Floats | float,
        step: int,
        phase: float | Floats,
        week: float | Floats = 0.0,
        credit: Floats | float = 1.0,
        reading: list[Readings] | None = None,
    ) -> Verdicts:
        """Score one value of each series and signal, then learn it.

        Args:
            values: Shape (signals, n): on a scale where deviations have about the same size everywhere. A value that is
                not finite is unknown and leaves its series as it was.
            widen: Broadcastable to (signals, n): factor on the scale, for values that rest on less data than usual.
            floor: Broadcastable to (signals, n): smallest scale, positive.
            step: Number of this step, rising by one.
            phase: Part of the day that has passed, in [0, 1); shape (n,) when series differ.
            week: Part of the week that has passed, likewise.
            credit: Broadcastable to (supports, n), in (0, 1]: what part of its own surprise a supported signal keeps.
            reading: Where to add what the channels read, for those who ask why.

        Returns:
            The verdicts, from what was known before this step.
        """
        config, levels = self.config, self._levels
        now = self._observe(values, widen, floor, phase, week)
        fits = self._fits if self._fits is not None else self._fit()
        channels = self._channels(now)
        statistics = channels.statistics(self._directed(now.value))
        surprises = fits.surprise(statistics)
        if reading is not None:
            reading.append(Readings(statistics, surprises, levels[_SEEN].copy(), levels[_AWAY].copy()))
        surprise: Floats = np.maximum.reduce(surprises, axis=0)
        support = surprise[: config.supports].copy()
        supported = surprise[config.supports : 2 * config.supports]
        supported *= credit
        np.maximum(supported, support, out=supported)
        warming = levels[_SEEN] < config.warm_steps
        ready = self._both(now.present * ~warming)
        surprise *= ready
        surprise *= 1 / config.surprise
        score = self._worst(surprise)
        shown = slice(config.supports, None)
        verdicts = Verdicts(
            score[shown],
            self._edges(channels, fits, support, credit, ready),
            now.expected[shown],
            (levels[_BASE] + now.profile)[shown],
            warming[shown],
        )
        if step % config.overlap == 0:
            self._learn_tails(now, statistics, score)
        self._learn(now, warming, score >= 1, step, phase, week)
        return verdicts

    def forget_seasons(self) -> None:
        """Learn the profiles of the day and the week anew."""
        self._season.restore({})
        self._week.restore({})

    def to_bytes(self) -> bytes:
        """Encode the state of all series."""
        arrays = {"levels": self._levels, "tails": self._tails}
        for name, season in (("season", self._season), ("week", self._week)):
            arrays |= {f"{name}_{part}": held for part, held in season.arrays().items()}
        return pack(_KIND, _VERSION, {}, arrays)

    @classmethod
    def from_bytes(cls, config: DetectorConfig, data: bytes) -> Detector:
        """Resume from what `to_bytes` wrote under the same configuration; profiles with other bins are learned anew.

        Raises:
            StateError: The bytes are no detector state, or of a detector with other signals or another overlap.
        """
        detector = cls(config)
        _, _, arrays = unpack(_KIND, (1, 2, _VERSION), data)
        levels, tails = arrays["levels"], arrays["tails"]
        if levels.shape[:-1] != detector._levels.shape[:-1] or levels.dtype != detector._dtype:
            msg = (
                f"`detector` state has the layout {levels.shape[:-1]} of {levels.dtype}, the configuration asks for "
                f"{detector._levels.shape[:-1]} of {detector._dtype}, so the history can't be used"
            )
            raise StateError(msg)
        detector._levels, detector._tails = levels, tails
        for name, season in (("season", detector._season), ("week", detector._week)):
            parts = {part: arrays[f"{name}_{part}"] for part in ("missed", "places") if f"{name}_{part}" in arrays}
            bins = arrays.get(f"{name}_bins", arrays.get(name))
            season.restore(parts if bins is None else parts | {"bins": bins})
        return detector

    def _observe(
        self, values: Floats, widen: Floats | float, floor: Floats | float, phase: float | Floats, week: float | Floats
    ) -> Observation:
        """Replace unknown values by the level, and let a first value set everything that is measured against."""
        levels, dtype = self._levels, self._dtype
        known = np.isfinite(values)
        present = known.astype(dtype)
        bounded = np.minimum(np.maximum(values, -_LARGEST_VALUE), _LARGEST_VALUE)
        value = np.where(known, bounded, levels[_LEVEL]).astype(dtype, copy=False)
        first = present > levels[_SEEN]
        if np.count_nonzero(first):
            for row in (_LEVEL, _BASE, _RECENT, _HIGHEST):
                np.copyto(levels[row], value, where=first)
            np.copyto(levels[_LOWEST], -value, where=first)
        profile, change = self._season.expected(phase)
        if self._week.bins is not None:
            of_week, change_of_week = self._week.expected(week)
            profile, change = profile + of_week, np.maximum(change, change_of_week)
        expected = levels[_LEVEL] + profile
        least = np.maximum(np.abs(expected) * self.config.relative_floor, floor)
        least = np.maximum(least, change * self.config.season_slack)
        least = np.maximum(least, (levels[_HIGHEST] + levels[_LOWEST]) * self.config.range_floor)
        scale = np.maximum(levels[_SPREAD] * (widen * _SPREAD_TO_SCALE), least).astype(dtype, copy=False)
        return Observation(value, present, profile, expected, scale, widen)

    def _channels(self, now: Observation) -> Channels:
        """Place the channels of every direction; see `Channels`."""
        levels, signals = self._levels, self.config.signals
        down = slice(signals - self.config.downward, signals)
        centre = np.empty((len(CHANNELS), signals + self.config.downward, levels.shape[-1]), self._dtype)
        centre[0, :signals] = now.expected
        centre[1, :signals] = levels[_RECENT] + now.profile
        centre[2, :signals] = levels[_HIGHEST]
        np.negative(centre[:2, down], out=centre[:2, signals:])
        centre[2, signals:] = levels[_LOWEST, down]
        width = np.empty_like(centre)
        width[:2, :signals] = now.scale
        np.add(levels[_HIGHEST] + levels[_LOWEST], now.scale, out=width[2, :signals])
        width[:, signals:] = width[:, down]
        return Channels(centre, width)

    def _edges(
        self, channels: Channels, fits: TailCurves, support: Floats, credit: Floats | float, ready: Floats
    ) -> Floats:
        """Find the values at which the scores would be 1, given what supports them; NaN where not ready."""
        supports = self.config.supports
        edge = channels.first_reaching(self._reaching)
        if supports:
            rows = slice(supports, 2 * supports)
            enough = np.asarray(self.config.surprise / credit, self._dtype)
            reaching = fits.rows(rows).statistic(enough)
            alone = channels.rows(rows).first_reaching(reaching)
            edge[rows] = np.where(support >= self.config.surprise, -np.inf, alone)
        edge = edge[supports:]
        signals = self.config.signals - supports
        np.negative(edge[signals:], out=edge[signals:])
        edge[ready[supports:] == 0] = np.nan
        return edge

    def _fit(self) -> TailCurves:
        """Derive the surprise functions from the tails; they hold until the tails learn again."""
        self._fits = curves(self.config.tail, self._tails, self._prior_shape)
        self._reaching = self._fits.statistic(np.full((1, 1, 1), self.config.surprise, self._dtype))
        return self._fits

    def _learn_tails(self, now: Observation, statistics: Floats, score: Floats) -> None:
        """Learn one step's statistics; called for steps that share no data with each other.

        A run of values that are away from the level is one event, not many: the farther into it, the less it teaches.
        """
        levels, config = self._levels, self.config
        weight = now.present / (levels[_AWAY] + 1)
        weight[score >= 1] *= config.anomalous_weight
        age = self._both(levels[_SEEN] * (1 / config.overlap))
        learn(config.tail, self._tails, statistics, least=self._least, weight=self._both(weight), age=age)
        self._fits = None

    def _learn(
        self,
        now: Observation,
        warming: NDArray[np.bool_],
        anomalous: NDArray[np.bool_],
        step: int,
        phase: float | Floats,
        week: float | Floats,
    ) -> None:
        """Update everything but the tails with one step's values."""
        levels, config = self._levels, self.config
        reach = now.scale * config.clip
        reach[warming] = _UNBOUNDED
        change = np.empty((3, *reach.shape), self._dtype)
        residual = np.subtract(now.value, now.expected, out=change[0])
        far = np.abs(residual) > reach
        far |= anomalous
        bound = now.scale * config.season_clip
        missed = np.minimum(np.maximum(residual, -bound), bound)
        self._season.learn(phase, missed, now.present, levels[_SEEN])
        self._week.learn(week, missed, now.present, levels[_SEEN])
        np.minimum(np.maximum(residual, -reach, out=residual), reach, out=residual)
        trusted = now.present.copy()
        trusted[far] *= config.anomalous_weight
        change[1] = residual
        np.subtract(np.abs(residual) / now.widen, levels[_SPREAD], out=change[2])
        ages = levels[_SETTLED : _SPREAD_AGE + 1]
        change *= trusted
        change /= np.minimum(ages + 1, self._memories)
        levels[_LEVEL : _SPREAD + 1] += change
        ages += now.present
        self._stretch(now, far)
        self._remember(now, step, trusted)
        self._absorb(now, far)

    def _stretch(self, now: Observation, far: NDArray[np.bool_]) -> None:
        """Move the ends of what was seen to a value beyond them, slowly while it is away; else a little inwards."""
        config, ends = self.config, self._levels[_HIGHEST : _LOWEST + 1]
        beyond = np.stack((now.value, -now.value))
        beyond -= ends
        inwards = (ends[0] + ends[1]) * now.present
        inwards *= -1 / (config.record_windows * config.overlap)
        np.maximum(beyond, inwards, out=beyond)
        beyond[:, far] *= config.anomalous_weight / config.overlap
        ends += beyond

    def _remember(self, now: Observation, step: int, trusted: Floats) -> None:
        """Let the value that no longer shares data with the next step enter the recent mean, and keep this one."""
        levels, overlap = self._levels, self.config.overlap
        leaving = levels[_RING + step % overlap]
        change = leaving - levels[_RECENT]
        change *= trusted
        change *= 1 / (self.config.recent_windows * overlap)
        change[np.isnan(change)] = 0
        levels[_RECENT] += change
        leaving[:] = now.value - now.profile
        leaving[now.present == 0] = np.nan

    def _absorb(self, now: Observation, far: NDArray[np.bool_]) -> None:
        """Make the present value the new normal of series that have stayed away from the old one for long enough."""
        levels = self._levels
        away = levels[_AWAY]
        away += np.where(far, now.present, -now.present)
        np.maximum(away, 0, out=away)
        absorbed = away >= self.config.absorb_steps
        if np.count_nonzero(absorbed):
            np.copyto(levels[_LEVEL], now.value - now.profile, where=absorbed)
            np.copyto(levels[_RECENT], now.value - now.profile, where=absorbed)
            np.maximum(levels[_HIGHEST], now.value, out=levels[_HIGHEST], where=absorbed)
            np.maximum(levels[_LOWEST], -now.value, out=levels[_LOWEST], where=absorbed)
            np.copyto(levels[_SETTLED], self.config.overlap, where=absorbed)
            away[absorbed] = 0

    def _worst(self, directed: Floats) -> Floats:
        """Return the larger of a signal's directions: shape (signals, n)."""
        signals = self.config.signals
        worst = directed[:signals]
        down = worst[signals - self.config.downward :]
        np.maximum(down, directed[signals:], out=down)
        return worst

    def _both(self, signals: Floats) -> Floats:
        """Repeat the signals that are watched downwards after all of them: shape (directions, n)."""
        return np.concatenate((signals, signals[len(signals) - self.config.downward :]))

    def _directed(self, signals: Floats) -> Floats:
        """The same with the repeated ones negated, so that farther is larger in every direction."""
        return np.concatenate((signals, -signals[len(signals) - self.config.downward :]))

    def _make_fresh_levels(self) -> Floats:
        config = self.config
        fresh = np.zeros((_RING + config.overlap, config.signals, 1), self._dtype)
        fresh[_SPREAD, :, 0] = config.prior_spread
        fresh[_SPREAD_AGE] = config.prior_windows * config.overlap
        fresh[_RING:] = np.nan
        return fresh

    def _make_fresh_tails(self) -> Floats:
        directions = self.config.signals + self.config.downward
        priors = starting(self.config.tail, np.array(_PRIOR_THRESHOLDS), np.array(_PRIOR_EXCESSES))
        return np.repeat(priors[:, :, None, None], directions, axis=2).astype(self._dtype)

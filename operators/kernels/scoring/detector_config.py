"""What the detector watches and how fast it learns."""

from __future__ import annotations

from dataclasses import dataclass, field

from operators.kernels.scoring.season import SeasonConfig
from operators.kernels.scoring.tails import TailConfig


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """What the detector watches and how fast it learns. Windows are counted as if they did not overlap.

    The defaults are the general profile: one value of whatever meaning, on its own scale, watched in both directions.
    Detection hardly depends on any single one of them: halving or doubling one changes the NAB score by up to 3 and the
    F1 by up to .02. So they are no settings of the flow.

    Attributes:
        signals: Number of values of each series, k.
        downward: How many of the signals, the last ones, are watched downwards too.
        supports: How many of the signals, the first ones, get no verdict of their own but speak for another one: the
            first for the first signal behind them, and so on. The more surprised of both counts.
        overlap: Steps that share data with a step: window length over slide; 1 for values of their own.
        steps_per_day: Steps in a day of event time: the length of the season.
        warm_steps: Known values that a series needs before it is scored.
        surprise: -log10 of the tail probability at which the score is 1.
        level_windows: Memory of the expected level.
        base_windows: Memory of the slow level, which lasting shifts do not pull along.
        recent_windows: Memory of the mean that jumps are measured against.
        spread_windows: Memory of the scale.
        record_windows: Memory of the largest and smallest value.
        absorb_steps: Steps after which a value that stays away becomes the new level.
        clip: Residuals count for learning up to this many scales.
        season_clip: The same for the season, which has to learn what happens every day however far it goes.
        season_slack: Smallest scale, as a part of the change between the bins of the season that a step lies between.
        anomalous_weight: What part of its weight in learning a value keeps that is anomalous or beyond `clip`.
        prior_spread: Per signal, the mean absolute deviation expected before anything is known.
        prior_windows: Windows that the prior spread is worth.
        relative_floor: Smallest scale, as a part of the level's magnitude.
        range_floor: Smallest scale, as a part of the range that the values have shown. The spread of a series that
            rests on one value between bursts shrinks to nothing, and then the smallest burst is beyond all measure.
        single_precision: Whether state and arithmetic are float32; inputs must then stay below 1e15.
        tail: How tails are fitted.
        season: The time-of-day profile.
        week: The profile of the week, which is learned from what the time of day does not explain.
    """

    signals: int = 1
    downward: int = 1
    supports: int = 0
    overlap: int = 1
    steps_per_day: int = 288
    warm_steps: int = 30
    surprise: float = 3.5
    level_windows: float = 25.0
    base_windows: float = 500.0
    recent_windows: float = 3.0
    spread_windows: float = 1500.0
    record_windows: float = 20000.0
    absorb_steps: int = 60
    clip: float = 4.0
    season_clip: float = 20.0
    season_slack: float = 0.25
    anomalous_weight: float = 1.0
    prior_spread: tuple[float, ...] = (0.0,)
    prior_windows: float = 0.0
    relative_floor: float = 1e-3
    range_floor: float = 0.01
    single_precision: bool = False
    tail: TailConfig = field(default_factory=TailConfig)
    season: SeasonConfig = field(default_factory=SeasonConfig)
    week: SeasonConfig = field(default_factory=lambda: SeasonConfig(bins=0))

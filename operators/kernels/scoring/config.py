"""Settings of the scorer: what a person may want to change, with defaults that page rarely and for a reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from operators.kernels.local_time import LocalTime
from operators.kernels.scoring.detector_config import DetectorConfig
from operators.kernels.scoring.panel import PanelConfig
from operators.kernels.scoring.season import SeasonConfig

_DAY_MS = 86_400_000
_PRIOR_SPREADS = (0.1, 0.15, 0.03, 0.1)
"""Mean absolute deviations of P90, P99, error ratio and rate on the scales of `Measures.watched`."""

_PRIOR_WINDOWS = 6.0
_MEMORY_WEEKS = 4.0

_ANOMALOUS_WEIGHT = 0.1
"""Overlapping windows show an incident again and again: with full learning it would hide itself, and the next one."""


@dataclass(frozen=True, slots=True)
class ScoringConfig:
    """What counts as anomalous.

    A value is anomalous when it is improbable *and* far enough from what was expected to matter: at least the absolute
    and the relative deviation given here. Latency and errors count upwards only. Traffic that falls is a failure of
    somebody; traffic that rises is mostly success, and what it breaks shows in latency and errors, so only a rise far
    beyond any campaign counts.

    Attributes:
        surprise: -log10 of the probability, by the history of the series, at which the score is 1.
        warm_windows: Windows with data that a series needs before it is scored.
        min_count: Requests that a window needs for its P99 to mean anything; below, the latency is unknown.
        full_count: Requests that a window needs for its P99 to count in full. The P99 of fewer rests on fewer than
            five of them, of a hundred on one; there P90 has to rise as well, whose surprise always counts.
        count_scale: Requests at which a window's own sampling noise is as large as everything else that varies: the
            scale of a window of n requests is sqrt(1 + count_scale / n) times that of a large one.
        absorb_windows: Windows after which a lasting shift becomes the new normal.
        latency_min_ms: Smallest rise of P99 that counts, in milliseconds.
        latency_min_ratio: Smallest rise of P99 that counts, as a part of the expected one.
        errors_min: Smallest rise of the error ratio that counts, in [0, 1].
        errors_min_count: Smallest number of errors in a window that counts.
        errors_min_ratio: Smallest rise of the error ratio that counts, as a part of the expected one.
        traffic_drop_min_per_s: Smallest fall of the rate that counts, in requests per second.
        traffic_drop_min_ratio: Smallest fall of the rate that counts, as a part of the expected one, in [0, 1].
        traffic_rise_min_per_s: Smallest rise of the rate that counts, in requests per second.
        traffic_rise_min_ratio: Smallest rise of the rate that counts, as a part of the expected one; 3 is four times.
        season_bins: Bins of the time-of-day profile; 0 switches it off.
        week_bins: Bins of the profile of the week, on top of that of the day; 0 switches it off.
        local_time: The time of day that people live by where the requests come from.
        panel: Detectors beside the default one, and which series they watch.
    """

    surprise: float = 4.5
    warm_windows: int = 30
    min_count: int = 20
    full_count: int = 500
    count_scale: float = 100.0
    absorb_windows: int = 60
    latency_min_ms: float = 10.0
    latency_min_ratio: float = 0.5
    errors_min: float = 0.02
    errors_min_count: int = 5
    errors_min_ratio: float = 0.5
    traffic_drop_min_per_s: float = 0.5
    traffic_drop_min_ratio: float = 0.25
    traffic_rise_min_per_s: float = 1.0
    traffic_rise_min_ratio: float = 3.0
    season_bins: int = 48
    week_bins: int = 0
    local_time: LocalTime = field(default_factory=LocalTime)
    panel: PanelConfig = field(default_factory=PanelConfig)

    def __post_init__(self) -> None:
        """Reject impossible values.

        Raises:
            ValueError: A value is out of its range.
        """
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int | float) and (not math.isfinite(value) or value < 0):
                msg = f"`{one.name}` must be finite and not below 0, or nothing could be compared with it; got {value}"
                raise ValueError(msg)
        for name in ("surprise", "warm_windows", "absorb_windows", "min_count", "full_count"):
            if getattr(self, name) <= 0:
                msg = f"`{name}` must be more than 0, or every window would be anomalous; got {getattr(self, name)}"
                raise ValueError(msg)
        for name in ("errors_min", "traffic_drop_min_ratio"):
            if getattr(self, name) >= 1:
                msg = f"`{name}` must be below 1, or no value could deviate that far; got {getattr(self, name)}"
                raise ValueError(msg)

    def detector(self, *, slide_ms: int, length_ms: int) -> DetectorConfig:
        """Return the configuration of the detector behind these settings.

        Args:
            slide_ms: Milliseconds between window ends.
            length_ms: Milliseconds that a window is long; a multiple of the slide.
        """
        overlap = length_ms // slide_ms
        return DetectorConfig(
            signals=4,
            downward=1,
            supports=1,
            overlap=overlap,
            steps_per_day=max(_DAY_MS // slide_ms, 1),
            warm_steps=max(self.warm_windows - overlap + 1, 2),
            surprise=self.surprise,
            absorb_steps=self.absorb_windows,
            anomalous_weight=_ANOMALOUS_WEIGHT,
            prior_spread=_PRIOR_SPREADS,
            prior_windows=_PRIOR_WINDOWS,
            single_precision=True,
            season=SeasonConfig(bins=self.season_bins),
            week=SeasonConfig(bins=self.week_bins, memory_periods=_MEMORY_WEEKS),
        )

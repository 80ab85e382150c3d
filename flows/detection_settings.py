"""Settings of detection, what counts as anomalous, and what the kernels make of them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, Field

from flows.detector_choice import DETECTOR_RULE, panel_of, parsed
from flows.setting_sources import Rule, SettingsError, variable
from flows.setting_types import Group, decimal, whole
from flows.time_zone import local_time, zone_name
from operators.kernels.scoring import ScoringConfig
from operators.kernels.scoring.protocol import WindowSpan

if TYPE_CHECKING:
    from flows.settings import Settings

_USUAL: Final = ScoringConfig()

_MOST_WINDOWS: Final = 10_000_000
_MOST_REQUESTS: Final = 1_000_000_000
_MOST_BINS: Final = 1_440

Windows = Annotated[int, *whole(1, _MOST_WINDOWS, "windows")]
Requests = Annotated[int, *whole(1, _MOST_REQUESTS, "requests")]
Part = Annotated[float, *decimal(0, 0.999999, "a part of the whole")]
Multiple = Annotated[float, *decimal(0, 1e6, "a multiple of what is expected")]
Rate = Annotated[float, *decimal(0, 1e9, "requests per second")]


def _detector(value: str) -> str:
    parsed(value)
    return value


DetectorText = Annotated[str, AfterValidator(_detector), Rule(DETECTOR_RULE)]
Names = Annotated[str, Field(min_length=1), Rule("names of detectors, separated by commas")]


class DetectionSettings(Group):
    """What counts as anomalous: a value must be improbable, and far enough from what was expected to matter."""

    surprise: Annotated[float, *decimal(1, 15, "-log10 of a probability")] = Field(
        default=_USUAL.surprise,
        description="How improbable, by the history of its own series, a value is at which the score is 1: "
        "4.5 is one window in 30,000. More is fewer and later alerts.",
    )
    warm_windows: Windows = Field(
        default=_USUAL.warm_windows, description="Windows with data that a series needs before it is scored."
    )
    min_count: Requests = Field(
        default=_USUAL.min_count,
        description="Requests that a window needs for its P99 to mean anything; below, the latency is unknown.",
    )
    full_count: Requests = Field(
        default=_USUAL.full_count,
        description="Requests that a window needs for its P99 to count in full; below, P90 has to rise as well.",
    )
    count_scale: Annotated[float, *decimal(0, 1e6, "requests")] = Field(
        default=_USUAL.count_scale,
        description="Requests at which a window's own sampling noise is as large as everything else that varies. "
        "More widens the bands of series with little traffic.",
    )
    absorb_windows: Windows = Field(
        default=_USUAL.absorb_windows, description="Windows after which a lasting shift becomes the new normal."
    )
    latency_min_ms: Annotated[float, *decimal(0, 1e9, "milliseconds")] = Field(
        default=_USUAL.latency_min_ms, description="Smallest rise of P99 that counts, in milliseconds."
    )
    latency_min_ratio: Multiple = Field(
        default=_USUAL.latency_min_ratio,
        description="Smallest rise of P99 that counts, as a part of the expected P99: 0.5 is half as much again.",
    )
    errors_min: Part = Field(
        default=_USUAL.errors_min, description="Smallest rise of the error ratio that counts: 0.02 is two in a hundred."
    )
    errors_min_count: Annotated[int, *whole(0, _MOST_REQUESTS, "errors")] = Field(
        default=_USUAL.errors_min_count, description="Smallest number of errors in a window that counts."
    )
    errors_min_ratio: Multiple = Field(
        default=_USUAL.errors_min_ratio,
        description="Smallest rise of the error ratio that counts, as a part of the expected one.",
    )
    traffic_drop_min_per_s: Rate = Field(
        default=_USUAL.traffic_drop_min_per_s, description="Smallest fall of the request rate that counts."
    )
    traffic_drop_min_ratio: Part = Field(
        default=_USUAL.traffic_drop_min_ratio,
        description="Smallest fall of the request rate that counts, as a part of the expected one.",
    )
    traffic_rise_min_per_s: Rate = Field(
        default=_USUAL.traffic_rise_min_per_s, description="Smallest rise of the request rate that counts."
    )
    traffic_rise_min_ratio: Multiple = Field(
        default=_USUAL.traffic_rise_min_ratio,
        description="Smallest rise of the request rate that counts, as a part of the expected one: 3 is four times.",
    )
    season_bins: Annotated[int, *whole(0, _MOST_BINS, "bins")] = Field(
        default=_USUAL.season_bins,
        description="Bins of the time-of-day profile, learned from a series' second day on; 0 switches it off.",
    )
    week_bins: Annotated[int, *whole(0, _MOST_BINS, "bins")] = Field(
        default=_USUAL.week_bins,
        description="Bins of a profile of the week on top of that of the day, learned from a series' second week on; "
        "28 tells quarters of days apart. 0: no such profile.",
    )
    time_zone: Annotated[str, AfterValidator(zone_name), Rule("the name of a time zone that this machine knows")] = (
        Field(
            default=_USUAL.local_time.name,
            description="Local time of day and week that the profiles follow, such as `Europe/Berlin`, daylight saving "
            "time and all. In another one the profiles are learned anew.",
        )
    )
    detectors: Annotated[dict[str, DetectorText], Rule(DETECTOR_RULE)] = Field(
        default_factory=dict,
        description="Detectors beside `default` and `knn`, by a name of your own, for `DETECTION__SERIES` to choose.",
    )
    series: Annotated[dict[str, Names], Rule("names of detectors, separated by commas")] = Field(
        default_factory=dict,
        description="Which detectors watch the series that match a pattern of `service|endpoint` (`*`, `?`, `[…]`); "
        "the most specific pattern decides. A series that none matches has `default`. Patterns belong in the file.",
    )


def scoring_of(settings: Settings) -> ScoringConfig:
    """Make what the scorer is told.

    Raises:
        SettingsError: The detectors can't work so; one line that names the setting.
    """
    detection, span = settings.detection, settings.window
    values = {
        field.name: getattr(detection, field.name) for field in fields(ScoringConfig) if hasattr(detection, field.name)
    }
    panel = panel_of(detection.detectors, detection.series, WindowSpan(span.length_ms, span.slide_ms))
    try:
        return ScoringConfig(**values, local_time=local_time(detection.time_zone), panel=panel)
    except ValueError as error:
        raise SettingsError(named(("detection",), str(error), detection)) from None


def named(group: tuple[str, ...], message: str, values: Group) -> str:
    """Say which setting a kernel refuses: the first word between backticks of its message is the name."""
    name = message.split("`")[1] if "`" in message else ""
    if name not in type(values).model_fields:
        return f"[{'.'.join(group)}]: {message}"
    return f"{variable((*group, name))}={getattr(values, name)}: {message}"

"""Settings of alerts, when an anomaly becomes a page and when it is over, and what the kernel makes of them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field

from flows.detection_settings import named
from flows.setting_sources import Rule, SettingsError
from flows.setting_types import Duration, Group, Switch, decimal, empty_is_unset, whole
from flows.suppression_settings import MAINTENANCE_RULE, feedback, maintenance
from operators.kernels.episodes import EpisodeConfig
from operators.kernels.episodes.config import URL_FIELDS
from operators.kernels.episodes.silence import MEMORY_GAPS

if TYPE_CHECKING:
    from flows.settings import Settings

_USUAL: Final = EpisodeConfig()
_NAMES: Final = {field.name for field in fields(EpisodeConfig)}

_MOST_WINDOWS: Final = 1_000
_MOST_OPENINGS: Final = 100

BUDGET_RULE: Final = Rule("alerts a series a day from 0.001 to 1e+06")

Budget = Annotated[float, *decimal(0.001, 1e6, "alerts a series a day")]
Score = Annotated[float, *decimal(1, 100, "a score")]
Span = Annotated[
    Duration | None, BeforeValidator(empty_is_unset), Rule("a whole number of milliseconds from 1 to 31622400000")
]
Link = Annotated[
    str,
    Field(min_length=1),
    Rule("a URL that may hold " + ", ".join(f"{{{field}}}" for field in sorted(URL_FIELDS)) + " to be filled in"),
]


def _maintenance(value: str) -> str:
    maintenance(value)
    return value


MaintenanceText = Annotated[str, AfterValidator(_maintenance), Rule(MAINTENANCE_RULE)]


class AlertSettings(Group):
    """When an anomaly becomes a page, and when it is over. All durations are event time."""

    immediate_score: Score = Field(
        default=_USUAL.immediate_score, description="One window with this score opens an alert at once."
    )
    open_windows: Annotated[int, *whole(1, _MOST_WINDOWS, "windows")] = Field(
        default=_USUAL.open_windows,
        description="So many anomalous windows open an alert, of the last `open_within_windows`; 1 opens at the first.",
    )
    open_within_windows: Annotated[int, *whole(1, _MOST_WINDOWS, "windows")] = Field(
        default=_USUAL.open_within_windows, description="How many windows back the evidence may lie."
    )
    latency_critical_score: Score = Field(
        default=_USUAL.latency_critical_score,
        description="A `LatencyAnomaly` whose evidence reached this score is critical; below it is a warning.",
    )
    errors_critical_score: Score = Field(
        default=_USUAL.errors_critical_score, description="The same for `ErrorRatioAnomaly`."
    )
    traffic_critical_score: Score = Field(
        default=_USUAL.traffic_critical_score, description="The same for `TrafficAnomaly`."
    )
    traffic_rises_open: Switch = Field(
        default=_USUAL.traffic_rises_open, description="More traffic than expected opens a `TrafficAnomaly` too."
    )
    close_score: Annotated[float, *decimal(0.01, 1, "a score")] = Field(
        default=_USUAL.close_score, description="Below this score a window is quiet; less than 1, against flicker."
    )
    quiet_ms: Span = Field(
        default=None,
        description="So long must an alert be quiet to be resolved; more than a window. Unset: 1.5 windows.",
    )
    unknown_hold_ms: Span = Field(
        default=None, description="So long do windows without a score hold an alert open. Unset: 5 windows."
    )
    flap_opens: Annotated[int, *whole(2, _MOST_OPENINGS, "openings")] = Field(
        default=_USUAL.flap_opens,
        description="The so-manieth opening within `flap_horizon_ms` is flapping, and is held as one alert.",
    )
    flap_horizon_ms: Span = Field(default=None, description="How long an opening is remembered. Unset: 30 windows.")
    flap_quiet_ms: Span = Field(
        default=None, description="So long must a flapping alert be quiet to be resolved. Unset: 10 windows."
    )
    silence_floor_ms: Span = Field(
        default=None,
        description="No service is called silent after less than this without requests; its own rhythm may ask for "
        "more. Unset: 2 slides.",
    )
    silence_warmup_gaps: Annotated[int, *whole(1, MEMORY_GAPS, "gaps")] = Field(
        default=_USUAL.silence_warmup_gaps,
        description="Gaps between requests that a service must have shown before its silence means something.",
    )
    alerts_per_day: Annotated[Budget | None, BeforeValidator(empty_is_unset), BUDGET_RULE] = Field(
        default=None,
        description="Budget of alerts a series a day. Above it, anomalies need a higher score to open an alert, up to "
        "`immediate_score`. Unset: no budget.",
    )
    false_discovery_ratio: Annotated[float, *decimal(0.0001, 1, "a part of the whole")] = Field(
        default=_USUAL.false_discovery_ratio,
        description="Of the anomalies that come up at one moment in one shard, the part that may be chance; it matters "
        "from about a thousand series a shard on. 1: nobody asks.",
    )
    maintenance: Annotated[dict[str, MaintenanceText], Rule(MAINTENANCE_RULE)] = Field(
        default_factory=dict,
        description="Spans of event time, by a name of your own, in which no alert opens for the series that match.",
    )
    feedback_path: Annotated[str | None, BeforeValidator(empty_is_unset), Rule("the path of a file")] = Field(
        default=None,
        description="File of `tailmark feedback`, read at start: alerts that were no anomaly, and what is no worse, "
        "stay closed. Every process of a cluster needs the same one. Unset: none.",
    )
    runbook_url: Link = Field(
        default=_USUAL.runbook_url, description="Address of the runbook of an alert, in its annotations."
    )
    dashboard_url: Link = Field(
        default=_USUAL.dashboard_url,
        description="Address of the dashboard of an alert, in its annotations and as its `generatorURL`.",
    )


def policy_of(settings: Settings) -> EpisodeConfig:
    """Make what the alerts are told; times that are not set follow the size of the windows.

    Raises:
        SettingsError: No alert could work so; one line that names the setting.
    """
    alerts, span = settings.alerts, settings.window
    usual = EpisodeConfig.for_windows(length_ms=span.length_ms, slide_ms=span.slide_ms)
    given = {name: getattr(alerts, name) for name in type(alerts).model_fields if name in _NAMES}
    given["surprise"] = settings.detection.surprise
    given["maintenance"] = tuple(maintenance(text) for _, text in sorted(alerts.maintenance.items()))
    if alerts.feedback_path is not None:
        given["harmless"] = feedback(Path(alerts.feedback_path))
    try:
        return replace(usual, **{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise SettingsError(named(("alerts",), str(error), alerts)) from None

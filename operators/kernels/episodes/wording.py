"""What an alert says: its name, its identity, and sentences that a person understands at three in the morning."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operators.kernels.episodes.config import EpisodeConfig

LATENCY: Final = 0
ERRORS: Final = 1
TRAFFIC: Final = 2
SILENCE: Final = 3
ALERTNAMES: Final = ("LatencyAnomaly", "ErrorRatioAnomaly", "TrafficAnomaly", "ServiceSilent")
"""Names of the alerts: of the three signals in the order of `frames.SIGNALS`, then of a whole service."""

FIRING: Final = "firing"
CALM: Final = "calm"
UNKNOWN: Final = "unknown"
EXPIRED: Final = "expired"
"""Why an alert speaks: it fires, it was quiet, it had no score for too long, or its series is no longer watched."""

_EMPTY_PARAMETER: Final = re.compile(r"(?<=[?&])[^=&#]*=(?:&|(?=#|$))")
_DASHBOARD_MARGIN_MS: Final = 1_800_000
_SMALL: Final = 10.0
_LARGE: Final = 100.0
_SIXTY: Final = 60
_ALMOST: Final = 0.99


@dataclass(frozen=True, slots=True)
class Facts:
    """The numbers behind one transition; NaN stands for one that is not known.

    Attributes:
        kind: Index into `ALERTNAMES`.
        service: Service.
        endpoint: Endpoint, empty for a service.
        value: What the window showed: milliseconds of P99, ratio of errors, or requests per second.
        expected: What was expected, in the same unit.
        lower: Bottom of the normal band, in the same unit.
        upper: Top of the normal band, in the same unit.
        score: 1 or more is anomalous.
        requests: Requests in the window.
        length_ms: Length of the window.
        silent_ms: Time without requests; for silence only.
        usual_gap_ms: Usual time from one pane with requests to the next; for silence only.
        limit_ms: Time without requests that this service is allowed; for silence only.
    """

    kind: int
    service: str
    endpoint: str
    value: float = math.nan
    expected: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    score: float = math.nan
    requests: int = 0
    length_ms: int = 0
    silent_ms: float = math.nan
    usual_gap_ms: float = math.nan
    limit_ms: float = math.nan


def fingerprint(labels: Mapping[str, str]) -> str:
    """Hash labels.

    Args:
        labels: Labels of an alert, in any order.

    Returns:
        16 hex digits, the same on every machine and in every release.
    """
    return hashlib.blake2b(msgspec.json.encode(sorted(labels.items())), digest_size=8).hexdigest()


def duration_text(duration_ms: float) -> str:
    """Write a duration for people.

    Args:
        duration_ms: Milliseconds, not negative.

    Returns:
        Such as `40 s`, `4 min 30 s` or `2 h 5 min`.
    """
    seconds = round(duration_ms / 1_000)
    if seconds < _SIXTY:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, _SIXTY)
    if minutes < _SIXTY:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, _SIXTY)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def value_text(kind: int, value: float) -> str:
    """Write a measured or expected value with its unit.

    Args:
        kind: Index into `ALERTNAMES`.
        value: Milliseconds, ratio or requests per second, as the kind has it; NaN if unknown.

    Returns:
        Such as `1,240 ms`, `12.5%` or `3.2 requests/s`; `unknown` for NaN.
    """
    if math.isnan(value):
        return "unknown"
    if kind == ERRORS:
        return f"{value * 100:.3g}%"
    number = f"{value:.3g}" if value < _SMALL else f"{value:,.1f}" if value < _LARGE else f"{value:,.0f}"
    return f"{number} ms" if kind == LATENCY else f"{number} requests/s"


def annotate(
    config: EpisodeConfig, facts: Facts, reason: str, *, starts_at_ms: int, end_ms: int, flapping: bool
) -> dict[str, str]:
    """Write what informs a person about one transition.

    Args:
        config: Where the URL templates and the times named in the text come from.
        facts: Numbers of the window that caused the transition.
        reason: `FIRING`, `CALM`, `UNKNOWN` or `EXPIRED`.
        starts_at_ms: When the episode opened, event time.
        end_ms: Present window end, event time.
        flapping: Whether the episode is held through quick repetitions.

    Returns:
        `summary`, `description`, `runbook_url` and `dashboard_url`.
    """
    if reason == FIRING:
        summary, sentences = _trouble(facts), [_measured(facts)]
        if flapping:
            sentences.append(_flapping(config))
    else:
        summary = _end(facts, reason)
        sentences = [_closing(config, facts, reason, flapping=flapping)]
        sentences.append(f"The episode lasted {duration_text(end_ms - starts_at_ms)}.")
    filling = {
        "alertname": ALERTNAMES[facts.kind],
        "service": quote(facts.service, safe=""),
        "endpoint": quote(facts.endpoint, safe=""),
        "from_ms": starts_at_ms - _DASHBOARD_MARGIN_MS,
        "to_ms": end_ms + _DASHBOARD_MARGIN_MS,
    }
    return {
        "summary": summary,
        "description": " ".join(sentences),
        "runbook_url": _filled(config.runbook_url, filling),
        "dashboard_url": _filled(config.dashboard_url, filling),
    }


def _filled(template: str, filling: Mapping[str, object]) -> str:
    """Fill in a URL; a parameter that would be empty is left out, as an endpoint is where a whole service is meant."""
    return _EMPTY_PARAMETER.sub("", template.format_map(filling))


def _name(facts: Facts) -> str:
    return f"{facts.service} {facts.endpoint}" if facts.endpoint else facts.service


def _trouble(facts: Facts) -> str:
    name, value, usual = _name(facts), value_text(facts.kind, facts.value), value_text(facts.kind, facts.expected)
    if facts.kind == LATENCY:
        return f"{name} is slow: P99 {value}, expected {usual}"
    if facts.kind == ERRORS:
        return f"{name} is failing: {value} of requests are errors, expected {usual}"
    if facts.kind == TRAFFIC:
        change = "has more traffic than usual" if facts.value > facts.expected else "is losing traffic"
        return f"{name} {change}: {value}, expected {usual}"
    return f"{name} is silent: no request for {duration_text(facts.silent_ms)}"


def _score_text(score: float) -> str:
    """Write a score; one below 1 never reads as 1, or what is calm would be called anomalous."""
    return f"{min(score, _ALMOST) if score < 1 else score:.2f}"


def _measured(facts: Facts) -> str:
    if facts.kind == SILENCE:
        return (
            f"No endpoint of {facts.service} has had a request for {duration_text(facts.silent_ms)}. "
            f"Usually {duration_text(facts.usual_gap_ms)} or less pass between its requests, "
            f"and {duration_text(facts.limit_ms)} without one is the limit that was learned for it."
        )
    what = ("P99 latency", "share of requests with a status of 500 or more", "traffic")[facts.kind]
    return (
        f"The {what} of {_name(facts)} was {value_text(facts.kind, facts.value)} over the last "
        f"{duration_text(facts.length_ms)} ({facts.requests:,} requests); "
        f"expected {value_text(facts.kind, facts.expected)}{_band(facts)}. "
        f"Anomaly score {_score_text(facts.score)}, where 1 is anomalous."
    )


def _band(facts: Facts) -> str:
    lower, upper = value_text(facts.kind, facts.lower), value_text(facts.kind, facts.upper)
    if not math.isnan(facts.lower) and not math.isnan(facts.upper):
        return f", normal from {lower} to {upper}"
    if not math.isnan(facts.upper):
        return f", normal up to {upper}"
    return f", normal from {lower} upwards" if not math.isnan(facts.lower) else ""


def _flapping(config: EpisodeConfig) -> str:
    return (
        f"It keeps coming back ({config.flap_opens} times or more within {duration_text(config.flap_horizon_ms)}), "
        f"so it stays open until it has been quiet for {duration_text(config.flap_quiet_ms)}."
    )


def _end(facts: Facts, reason: str) -> str:
    name = _name(facts)
    if reason == EXPIRED:
        return f"{name} is no longer watched: it has had no request for too long"
    if reason == UNKNOWN:
        return f"{name} can no longer be judged: too few requests"
    return (
        f"{name} "
        + (
            "has normal latency again",
            "has a normal error ratio again",
            "has normal traffic again",
            "has requests again",
        )[facts.kind]
    )


def _closing(config: EpisodeConfig, facts: Facts, reason: str, *, flapping: bool) -> str:
    if reason == EXPIRED:
        return "This is not a recovery: its series left the windows after their time to live without a request."
    if reason == UNKNOWN:
        return "This is not a recovery: its windows have held too few requests for a score."
    quiet = duration_text(config.flap_quiet_ms if flapping else config.quiet_ms)
    if facts.kind == SILENCE:
        return f"Requests have been coming for {quiet}; now {value_text(TRAFFIC, facts.value)}."
    return f"It has been quiet for {quiet}; now {value_text(facts.kind, facts.value)}."

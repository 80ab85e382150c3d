"""Builds the two records of an episode: the one that fires and the one that resolves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from operators.kernels.episodes.wording import (
    ALERTNAMES,
    ERRORS,
    FIRING,
    LATENCY,
    TRAFFIC,
    Facts,
    annotate,
    fingerprint,
)
from operators.kernels.frames import SIGNALS, Transition

if TYPE_CHECKING:
    from operators.kernels.episodes.config import EpisodeConfig
    from operators.kernels.episodes.track import Track
    from operators.kernels.frames import ScoredFrame


def series_facts(frame: ScoredFrame, kind: int, row: int) -> Facts:
    """Collect the numbers of one series and signal.

    Args:
        frame: Scored windows.
        kind: `LATENCY`, `ERRORS` or `TRAFFIC`.
        row: Row of the series.

    Returns:
        Facts in the unit of the signal.
    """
    windows = frame.windows
    count = int(windows.count[row])
    length_ms = windows.window_end_ms - windows.window_start_ms
    if kind == TRAFFIC:
        value = count / (length_ms / 1_000)
    elif kind == ERRORS:
        value = int(windows.errors[row]) / count if count else math.nan
    else:
        value = float(windows.p99_us[row]) / 1_000
    return Facts(
        kind,
        windows.service[row],
        windows.endpoint[row],
        value=value,
        expected=float(frame.expected[kind, row]),
        lower=float(frame.lower[kind, row]),
        upper=float(frame.upper[kind, row]),
        score=float(frame.score[kind, row]),
        requests=count,
        length_ms=length_ms,
    )


def fire(config: EpisodeConfig, track: Track, facts: Facts, starts_at_ms: int, end_ms: int) -> Transition:
    """Open an episode.

    Args:
        config: Policy.
        track: The alert; its evidence is used up.
        facts: Numbers of the window that opens it.
        starts_at_ms: End of the first window of the evidence, event time.
        end_ms: End of the window that opens it, event time.

    Returns:
        The record that fires, kept in `track`.
    """
    severity = _severity(config, track, facts.kind)
    flapping = track.remember_opening(config, end_ms)
    labels = {
        "alertname": ALERTNAMES[facts.kind],
        "service": track.service,
        "endpoint": track.endpoint,
        "severity": severity,
    }
    track.evidence, track.held = [], ""
    track.firing = Transition(
        fingerprint=fingerprint(labels),
        status="firing",
        labels=labels,
        annotations=annotate(config, facts, FIRING, starts_at_ms=starts_at_ms, end_ms=end_ms, flapping=flapping),
        starts_at_ms=starts_at_ms,
        ends_at_ms=None,
        window_end_ms=end_ms,
        signal=SIGNALS[min(facts.kind, TRAFFIC)],
        value=_or_none(facts.value),
        expected=_or_none(facts.expected),
        score=facts.score,
        flapping=flapping,
    )
    return track.firing


def resolve(config: EpisodeConfig, track: Track, facts: Facts, reason: str, end_ms: int) -> Transition:
    """Close the open episode of an alert.

    Args:
        config: Policy.
        track: The alert; it has an open episode.
        facts: Numbers of the present window, those that are known.
        reason: `CALM`, `UNKNOWN` or `EXPIRED`.
        end_ms: End of the present window, event time.

    Returns:
        The record that resolves, with labels and start of the one that fired.

    Raises:
        AssertionError: The alert has no open episode.
    """
    firing = track.firing
    if firing is None:
        msg = f"only an open episode can be resolved, or its alert would be told wrongly; got `{track.service}`"
        raise AssertionError(msg)
    track.firing, track.incident = None, ""
    annotations = annotate(
        config, facts, reason, starts_at_ms=firing.starts_at_ms, end_ms=end_ms, flapping=firing.flapping
    )
    if "incident" in firing.annotations:
        annotations["incident"] = firing.annotations["incident"]
    return Transition(
        fingerprint=firing.fingerprint,
        status="resolved",
        labels=firing.labels,
        annotations=annotations,
        starts_at_ms=firing.starts_at_ms,
        ends_at_ms=end_ms,
        window_end_ms=end_ms,
        signal=firing.signal,
        value=_or_none(facts.value),
        expected=_or_none(facts.expected),
        score=facts.score,
        flapping=firing.flapping,
    )


def _severity(config: EpisodeConfig, track: Track, kind: int) -> str:
    critical_score = {
        LATENCY: config.latency_critical_score,
        ERRORS: config.errors_critical_score,
        TRAFFIC: config.traffic_critical_score,
    }.get(kind, 0.0)
    return "critical" if max((score for _, score in track.evidence), default=0.0) >= critical_score else "warning"


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None

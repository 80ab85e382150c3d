"""How the view and the summary write times, values and verdicts: short, with units, the same everywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from local.demo.matching import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.demo.board import WindowRecord
    from local.demo.matching import Judgement, Outcome

BARS: Final = "▁▂▃▄▅▆▇█"
UNKNOWN: Final = "–"
VERDICT_STYLES: Final = {
    Verdict.FOUND: "green",
    Verdict.HELD: "green",
    Verdict.MISSED: "bold red",
    Verdict.OPEN: "yellow",
    Verdict.QUIET: "green",
    Verdict.PAGED: "bold magenta",
}

_MINUTE_S: Final = 60
_MANY_S: Final = 600
_HOUR_S: Final = 3600
_TEN: Final = 10.0
_SECOND_MS: Final = 1000.0


def clock(time_ms: int) -> str:
    """Write the time of day of an event time, UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%H:%M:%S") if time_ms else "--:--:--"


def stopwatch(seconds: float) -> str:
    """Write wall time that has passed, such as `1:05`."""
    return f"{int(seconds) // _MINUTE_S}:{int(seconds) % _MINUTE_S:02d}"


def duration(span_ms: float) -> str:
    """Write a duration, such as `90 s`, `12 min 10 s` or `2 h 5 min`; up to ten minutes seconds are compared best."""
    seconds = round(span_ms / 1000)
    if seconds < _MANY_S:
        return f"{seconds} s"
    if seconds < _HOUR_S:
        minutes, rest = divmod(seconds, _MINUTE_S)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{seconds // _HOUR_S} h {seconds % _HOUR_S // _MINUTE_S} min"


def number(value: int | None) -> str:
    """Write a count."""
    return UNKNOWN if value is None else f"{value:,}"


def latency(value_ms: float | None) -> str:
    """Write a latency in three digits, such as `4.2 ms`, `566 ms` or `1.62 s`."""
    if value_ms is None:
        return UNKNOWN
    if value_ms >= _SECOND_MS:
        return f"{value_ms / _SECOND_MS:.2f} s"
    return f"{value_ms:.1f} ms" if value_ms < _TEN else f"{value_ms:.0f} ms"


def limit(window: WindowRecord) -> str:
    """Write the P99 up to which all is normal, such as `241 ms`; nothing while that is being learned."""
    if window.state == "warming" or window.latency_upper is None:
        return ""
    return latency(window.latency_upper)


def trouble(window: WindowRecord) -> str:
    """Write what is anomalous about a window, the worst signal first named; nothing when nothing is."""
    if window.state == "warming":
        return ""
    found: list[tuple[float, str]] = []
    if (window.latency_score or 0.0) >= 1.0 and window.p99_ms and window.latency_expected:
        found.append((window.latency_score or 0.0, f"{window.p99_ms / window.latency_expected:.1f}x slower"))
    if (window.errors_score or 0.0) >= 1.0:
        found.append((window.errors_score or 0.0, f"{window.error_ratio or 0.0:.0%} errors"))
    if (window.traffic_score or 0.0) >= 1.0 and window.traffic_expected:
        change = window.rate_per_s / window.traffic_expected - 1.0
        text = "no requests" if not window.count else f"{change:+.0%} traffic"
        found.append((window.traffic_score or 0.0, text))
    return max(found)[1] if found else ""


def sparkline(values: Sequence[float | None], top: float) -> str:
    """Draw values as bars from 0 to `top`, a blank where there is none."""
    last = len(BARS) - 1
    return "".join(
        " " if value is None else BARS[min(last, int(value / top * len(BARS))) if top > 0 else 0] for value in values
    )


def verdict(outcome: Outcome) -> str:
    """Write what came of an incident."""
    after = outcome.after_ms
    if outcome.verdict is Verdict.FOUND and after is not None:
        return f"found {duration(after)}"
    return {
        Verdict.HELD: "alert open",
        Verdict.MISSED: "MISSED",
        Verdict.OPEN: "not yet" if outcome.incident.page else "no page",
        Verdict.QUIET: "no page",
        Verdict.PAGED: "PAGED",
    }[outcome.verdict]


def tally(judgement: Judgement) -> str:
    """Write how many incidents were found and how many alerts were false, in one line."""
    parts = [f"{judgement.count(Verdict.FOUND)} of {judgement.paging} incidents found"]
    if not judgement.outcomes:
        parts = ["no incident yet"]
    if held := judgement.count(Verdict.HELD):
        parts.append(f"{held} in an alert open before")
    if undecided := judgement.count(Verdict.OPEN):
        parts.append(f"{undecided} not yet")
    parts.append(f"{judgement.count(Verdict.MISSED)} missed")
    wrong = len(judgement.false_alerts)
    parts.append(f"{wrong} false alert{'' if wrong == 1 else 's'}")
    if len(judgement.outcomes) > judgement.paging:
        paged = judgement.count(Verdict.PAGED, page=False)
        parts.append("surge: PAGED" if paged else "surge: no page")
    return " · ".join(parts)

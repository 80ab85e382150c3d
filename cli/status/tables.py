"""A report for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from cli.status.pages import ProcessFacts
    from cli.status.report import Report
    from cli.status.topics import OpenAlert, TopicFacts

_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))
_MS_PER_S: Final = 1000
_STYLES: Final = {"critical": "bold red", "warning": "yellow"}


def tables(report: Report, now_s: float) -> Group:
    """Lay out a report.

    Args:
        report: What was found.
        now_s: The time, in seconds since the epoch; ages are told by it.
    """
    parts: list[RenderableType] = []
    if report.processes:
        parts += [_health(report.processes, report.kafka.lag_events, now_s), "", _seen(report.processes), ""]
    if report.kafka.topics:
        parts += [_topics(report.kafka.topics, now_s), ""]
        parts += [_alerts(report.kafka.alerts, now_s) if report.kafka.alerts else "no alert is open", ""]
    parts += [Text(problem, style="bold red") for problem in report.problems] or [Text("all is well", style="green")]
    return Group(*parts)


def duration(seconds: float) -> str:
    """Write a duration, in seconds, in the unit that suits it."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def ago(seconds: float) -> str:
    """Write how long ago something was; event time may be ahead of the clock."""
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def _table(*columns: str, right: Iterable[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=column in right)
    return table


def _health(processes: list[ProcessFacts], snapshotted: dict[str, int], now_s: float) -> Table:
    """Lay out how processes keep up; what they have seen is a table of its own, so that both fit in 80 columns."""
    numbers = ("lag", "behind", "event time", "epoch", "since snapshot")
    table = _table("process", "state", *numbers, right=numbers)
    for process in processes:
        first = process.process == 0
        table.add_row(
            f"{process.flow} {process.process}",
            Text("ready", style="green") if process.ready else Text("not ready", style="bold red"),
            f"{process.lag_events:,}",
            "" if process.lag_s is None else duration(process.lag_s),
            "" if process.watermark_s is None else ago(now_s - process.watermark_s),
            duration(process.epoch_age_s),
            f"{snapshotted[process.flow]:,}" if first and process.flow in snapshotted else "",
        )
    return table


def _seen(processes: list[ProcessFacts]) -> Table:
    numbers = ("events", "late", "dead letters", "series", "warming")
    table = _table("process", *numbers, right=numbers)
    for process in processes:
        table.add_row(
            f"{process.flow} {process.process}",
            *(f"{process.events.get(outcome, 0):,}" for outcome in ("accepted", "late", "dead_letter")),
            f"{process.series:,}",
            "" if process.warming is None else f"{process.warming:,}",
        )
    return table


def _topics(topics: list[TopicFacts], now_s: float) -> Table:
    numbers = ("partitions", "offsets", "newest record")
    table = _table("topic", *numbers, right=numbers)
    for topic in topics:
        newest = "" if topic.newest_s is None else ago(now_s - topic.newest_s)
        if topic.partitions:
            table.add_row(topic.topic, str(topic.partitions), f"{topic.offsets:,}", newest)
        else:
            table.add_row(topic.topic, "absent", "", "")
    return table


def _alerts(alerts: list[OpenAlert], now_s: float) -> Table:
    numbers = ("value", "expected", "score", "began")
    table = _table("open alert", "severity", "service", "endpoint", *numbers, right=numbers)
    for alert in alerts:
        severity = alert.labels.get("severity", "")
        table.add_row(
            alert.labels.get("alertname", alert.fingerprint),
            Text(severity, style=_STYLES.get(severity, "")),
            Text(alert.labels.get("service", "")),
            Text(alert.labels.get("endpoint", "")),
            *("" if number is None else f"{number:.4g}" for number in (alert.value, alert.expected, alert.score)),
            ago(now_s - alert.starts_at_ms / _MS_PER_S),
        )
    return table

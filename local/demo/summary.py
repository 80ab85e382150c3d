"""What the demo says without a screen: a line now and then, and the summary at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from local.demo import wording
from local.demo.matching import Verdict

if TYPE_CHECKING:
    from local.demo.board import Board
    from local.demo.matching import Outcome
    from local.demo.view import Pace

SERVICES_NAMED: Final = 3


def status_line(board: Board, pace: Pace) -> str:
    """Write one line for a log.

    Args:
        board: What is known.
        pace: Where the demo stands in time.
    """
    vitals = board.vitals
    of = "" if pace.duration_s is None else f" of {wording.stopwatch(pace.duration_s)}"
    parts = [
        f"{wording.stopwatch(pace.elapsed_s)}{of}",
        f"event time {wording.clock(board.window_end_ms)}",
        f"{vitals.sent_per_s:,.0f} events/s",
        f"lag {wording.number(vitals.lag_events)}",
        f"{board.windows:,} windows",
        f"{len(board.open_alerts)} alerts open",
    ]
    if board.slides < board.warm_windows:
        parts.append(f"learning what is normal, {board.slides} of {board.warm_windows} windows")
    else:
        parts.append(wording.tally(board.judgement()))
    return " · ".join(parts)


def totals(board: Board, pace: Pace) -> Table:
    """Tell how much went through.

    Args:
        board: What is known.
        pace: Where the demo stood in time when it ended.
    """
    vitals, fired, still_open = board.vitals, len(board.alerts), len(board.open_alerts)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("time", f"{pace.elapsed_s:.0f} s, {wording.duration(board.span_ms)} of event time")
    known = "" if vitals.accepted is None else f": {vitals.accepted:,} accepted, {wording.number(vitals.late)} late"
    table.add_row("events", f"{vitals.sent:,} sent{known}, {board.dead_letters:,} dead letters")
    table.add_row("windows", f"{board.windows:,} closed, of {len(board.series)} series")
    table.add_row("alerts", f"{fired:,} fired, {fired - still_open:,} resolved, {still_open:,} open")
    return table


def incidents(board: Board) -> Table:
    """Tell what came of every incident.

    Args:
        board: What is known.

    Returns:
        A table, a row for each incident that began, and one for each false alert.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="bold")
    for name in ("incident", "services", "page?", "found after", "alert"):
        table.add_column(name, no_wrap=name != "services", overflow="fold")
    judgement = board.judgement()
    for outcome in judgement.outcomes:
        table.add_row(*_row(outcome, slide_ms=board.slide_ms))
    for alert in judgement.false_alerts:
        where = f"{alert.service} {alert.endpoint}".strip()
        fired = f"at {wording.clock(alert.fired_ms)}"
        table.add_row(Text("FALSE ALERT", "bold magenta"), where, "no", fired, alert.alertname)
    return table


def _row(outcome: Outcome, *, slide_ms: int) -> tuple[Text | str, ...]:
    incident, after_ms = outcome.incident, outcome.after_ms
    services = ", ".join(incident.services[:SERVICES_NAMED])
    if len(incident.services) > SERVICES_NAMED:
        services += f" and {len(incident.services) - SERVICES_NAMED} more"
    if outcome.verdict is Verdict.FOUND and after_ms is not None:
        slides = -(-after_ms // slide_ms)
        found = f"{wording.duration(after_ms)} ({slides} slide{'s' if slides > 1 else ''})"
    else:
        found = {
            Verdict.OPEN: "not yet" if incident.page else "no page so far",
            Verdict.QUIET: "no page, right",
        }.get(outcome.verdict, wording.verdict(outcome))
    alert = outcome.alerts[0].alertname if outcome.alerts else wording.UNKNOWN
    return (
        incident.kind.replace("-", " "),
        services,
        "yes" if incident.page else "no",
        Text(found, wording.VERDICT_STYLES[outcome.verdict]),
        alert,
    )

"""The live view: one screen that says what goes wrong, what was noticed, and how fast the pipeline is.

Red is wrong now, yellow undecided, green found, magenta a false alert, dim is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from local.demo import wording
from local.demo.matching import Verdict

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from local.demo.board import Board, Series
    from local.demo.matching import Alert, Judgement, Outcome

HEADER_ROWS: Final = 3
FRAME_ROWS: Final = 2
SERIES_ROWS_MIN: Final = 7

_MINUTE_MS: Final = 60_000
_BRAND: Final = " tailmark "
_SPARK_MIN: Final = 10
_NAME_WIDTH: Final = 23
_WIDTH_BESIDE_NAME: Final = 37
"""What a row of the series panel takes beside its name and sparkline, frame included."""

_ALERTS_SHARE, _INCIDENTS_SHARE = 37, 43
"""How the width is split between alerts and incidents: that many columns of 80."""

_SIGNALS: Final = {"latency": "slow", "errors": "errors", "traffic": "traffic"}


@dataclass(frozen=True, slots=True)
class Pace:
    """Where the demo stands in time.

    Attributes:
        elapsed_s: Wall time since events began to flow.
        duration_s: Wall time it will take; None: until somebody ends it.
        speed: Event time per wall time.
    """

    elapsed_s: float
    duration_s: float | None
    speed: float


@dataclass(frozen=True, slots=True)
class LiveView:
    """What is on the screen now.

    Attributes:
        board: What is known.
        pace: Where the demo stands in time.
    """

    board: Board
    pace: Pace

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the view out for the terminal as it is now."""
        width, height = options.max_width, options.height or console.height
        judgement = self.board.judgement()
        inner = max(height - HEADER_ROWS - 1 - 2 * FRAME_ROWS - 1, SERIES_ROWS_MIN + 3)
        series_rows = min(max(SERIES_ROWS_MIN, inner // 2), max(len(self.board.series), SERIES_ROWS_MIN))
        below_rows = inner - series_rows
        screen = Layout()
        screen.split_column(
            Layout(_header(self.board, self.pace, judgement, width), size=HEADER_ROWS),
            Layout(_series_panel(self.board, series_rows, width), size=series_rows + 1 + FRAME_ROWS),
            Layout(name="below", size=below_rows + FRAME_ROWS),
            Layout(_footer(judgement), size=1),
        )
        screen["below"].split_row(
            Layout(_alerts_panel(self.board, judgement, below_rows), ratio=_ALERTS_SHARE),
            Layout(_incidents_panel(self.board, judgement, below_rows), ratio=_INCIDENTS_SHARE),
        )
        yield screen


def _header(board: Board, pace: Pace, judgement: Judgement, width: int) -> Text:
    vitals = board.vitals
    of = "" if pace.duration_s is None else f" of {wording.stopwatch(pace.duration_s)}"
    left = f" event time {wording.clock(board.window_end_ms)}, {pace.speed:g}x speed"
    right = f"{wording.stopwatch(pace.elapsed_s)}{of} · Ctrl-C ends it "
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(_BRAND, "bold reverse").append(left, "bold")
    text.append(" " * max(1, width - len(_BRAND) - len(left) - len(right))).append(right, "dim").append("\n")
    parts = [
        f"{vitals.sent:,} sent",
        f"lag {wording.number(vitals.lag_events)}",
        f"{wording.number(vitals.late)} late",
        f"{board.dead_letters:,} dead",
        f"{board.windows:,} windows",
    ]
    text.append(f" {vitals.sent_per_s:,.0f} events/s", "bold").append(" · " + " · ".join(parts) + "\n")
    return text.append(" ").append(_headline(board, judgement))


def _headline(board: Board, judgement: Judgement) -> Text:
    """Say in one sentence what is going on."""
    running = [outcome for outcome in judgement.outcomes if board.running(outcome.incident)]
    running.sort(key=lambda outcome: (outcome.incident.page, outcome.incident.start_ms))
    if running:
        latest = running[-1]
        said = wording.verdict(latest)
        if latest.verdict is Verdict.OPEN:
            said = "not noticed yet" if latest.incident.page else "harmless, no page"
        text = Text("NOW ", "bold").append(f"[{said}] ", wording.VERDICT_STYLES[latest.verdict])
        return text.append(latest.incident.description)
    if not board.windows:
        return Text("waiting for the first windows", "yellow")
    if board.slides < board.warm_windows:
        progress = f"{board.slides} of {board.warm_windows} windows"
        return Text(f"learning what is normal ({progress}); nothing goes wrong yet", "yellow")
    return Text("nothing goes wrong now", "green")


def _footer(judgement: Judgement) -> Text:
    wrong = judgement.false_alerts or judgement.count(Verdict.MISSED)
    style = "bold red" if wrong else "bold green" if judgement.outcomes else "dim"
    return Text(f" {wording.tally(judgement)}", style, no_wrap=True, overflow="ellipsis")


def _series_panel(board: Board, rows: int, width: int) -> Panel:
    shown = sorted(board.series.values(), key=_urgency)[:rows]
    longest = max((len(_name(series)) for series in shown), default=0)
    # A name of the world's longest fits at 80 columns; longer ones are cut before the sparkline gets too short.
    name = max(min(_NAME_WIDTH, width - _WIDTH_BESIDE_NAME - _SPARK_MIN), min(longest, width // 4))
    spark = max(_SPARK_MIN, width - _WIDTH_BESIDE_NAME - name)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    table.add_column("series", width=name, no_wrap=True)
    table.add_column("P99", width=7, justify="right", no_wrap=True)
    table.add_column("normal to", width=9, justify="right", no_wrap=True)
    table.add_column(f"last {spark * board.slide_ms / _MINUTE_MS:.0f} min", width=spark, no_wrap=True)
    table.add_column("", width=12, no_wrap=True)
    for series in shown:
        table.add_row(*_series_row(series, spark))
    title = f"P99 over {wording.duration(board.length_ms)}: anomalous first, then slowest"
    return Panel(table, title=title, title_align="left", border_style="dim")


def _name(series: Series) -> str:
    return f"{series.latest.service} {series.latest.endpoint}"


def _urgency(series: Series) -> tuple[bool, float, str, str]:
    """Order series so that rows stay where they are while nothing happens."""
    latest = series.latest
    usual_ms = latest.latency_expected if latest.latency_expected is not None else latest.p99_ms or 0.0
    return latest.state != "anomalous", -usual_ms, latest.service, latest.endpoint


def _series_row(series: Series, spark: int) -> tuple[Text, ...]:
    latest = series.latest
    style = {"anomalous": "bold red", "warming": "dim"}.get(latest.state, "")
    what = Text("learning", "dim") if latest.state == "warming" else Text(wording.trouble(latest), "bold red")
    return (
        Text(_name(series), style),
        Text(wording.latency(latest.p99_ms), "bold red" if series.slow[-1] else style if not latest.p99_ms else ""),
        Text(wording.limit(latest), "dim"),
        _spark(series, spark),
        what,
    )


def _spark(series: Series, width: int) -> Text:
    """Draw the last P99s, those that were anomalous in red, on a scale on which the usual is a third."""
    values = list(series.p99_ms)[-width:]
    slow = list(series.slow)[-width:]
    usual_ms = series.latest.latency_expected or 0.0
    top = max([3.0 * usual_ms, *(value for value in values if value is not None)], default=1.0)
    text = Text(" " * (width - len(values)))
    for bar, was_slow in zip(wording.sparkline(values, top), slow, strict=True):
        text.append(bar, "red" if was_slow else "cyan")
    return text


def _grid(lines: list[tuple[Text, ...]], rows: int, empty: str) -> Table | Text:
    if not lines:
        return Text(empty, "dim")
    table = Table.grid(padding=(0, 1, 0, 0))
    for _ in lines[0]:
        table.add_column(no_wrap=True, overflow="ellipsis")
    shown = lines if len(lines) <= rows else lines[: rows - 1]
    for row in shown:
        table.add_row(*row)
    if len(shown) < len(lines):
        table.add_row(Text(f"+{len(lines) - len(shown)} more", "dim"))
    return table


def _alerts_panel(board: Board, judgement: Judgement, rows: int) -> Panel:
    opened = board.open_alerts
    groups: dict[tuple[str, str], list[Alert]] = {}
    for alert in opened:
        groups.setdefault((alert.service, alert.alertname), []).append(alert)
    lines = [_alert_row(alerts, judgement) for alerts in groups.values()]
    title = f"open alerts: {len(opened)}"
    body = _grid(lines, rows, "none")
    return Panel(body, title=title, title_align="left", border_style="red" if opened else "dim", padding=(0, 0, 0, 1))


def _alert_row(alerts: list[Alert], judgement: Judgement) -> tuple[Text, ...]:
    """Show the alerts of one service and name, and the incident that explains them."""
    style = "red" if any(alert.severity == "critical" for alert in alerts) else "yellow"
    what = "silent" if alerts[0].alertname == "ServiceSilent" else _SIGNALS.get(alerts[0].signal, alerts[0].signal)
    many = f"×{len(alerts)}" if len(alerts) > 1 else ""
    unexplained = [alert for alert in alerts if alert not in judgement.causes]
    if unexplained:
        cause = Text("FALSE", "bold magenta")
    else:
        cause = Text(judgement.causes[alerts[0]].kind.replace("-", " "), "green")
    return Text(alerts[0].service, f"bold {style}"), Text(f"{what}{many}", style), cause


def _incidents_panel(board: Board, judgement: Judgement, rows: int) -> Panel:
    newest = sorted(judgement.outcomes, key=lambda outcome: -outcome.incident.start_ms)
    newest.sort(key=lambda outcome: not board.running(outcome.incident))
    lines = [_incident_row(outcome, running=board.running(outcome.incident)) for outcome in newest]
    running = sum(board.running(outcome.incident) for outcome in newest)
    body = _grid(lines, rows, "none yet")
    title = f"incidents really running: {running}"
    return Panel(body, title=title, title_align="left", border_style="dim", padding=(0, 0, 0, 1))


def _incident_row(outcome: Outcome, *, running: bool) -> tuple[Text, ...]:
    incident = outcome.incident
    style = "" if running else "dim"
    more = f" +{len(incident.services) - 1}" if len(incident.services) > 1 else ""
    mark = "▶ " if running else "  "
    verdict_style = wording.VERDICT_STYLES[outcome.verdict]
    return (
        Text(mark + incident.kind.replace("-", " "), f"bold {style}".strip() if running else style),
        Text(incident.services[0] + more, style),
        Text(wording.verdict(outcome), verdict_style if running or "bold" in verdict_style else f"dim {verdict_style}"),
    )

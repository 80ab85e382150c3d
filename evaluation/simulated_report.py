"""What alerts on simulated worlds are worth: figures for programs, and a table for people."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from evaluation.simulated_rivals import (
    FOR_MINUTES,
    Grid,
    Thresholds,
    candidates,
    grafana_alerts,
    grid_of,
    threshold_alerts,
)
from evaluation.simulated_runs import pages_of
from local.demo.matching import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evaluation.simulated_runs import Run
    from local.demo.matching import Alert, Outcome

FLOW: Final = "tailmark"
THRESHOLD: Final = "static threshold"
GRAFANA: Final = "Grafana rules"
GRAFANA_AT_ONCE: Final = "Grafana rules, at once"

_OFF: Final = Thresholds(math.inf, math.inf, -math.inf)
_HOLDS: Final = (1, 2, 3, 6)


@dataclass(frozen=True, slots=True)
class KindFigures:
    """What came of the incidents of one kind.

    Attributes:
        kind: Such as `latency-step`.
        incidents: How many could be judged: those that an older alert held, or that the recording cut off, are not.
        found: How many of them were found.
        slides: Median slides from their beginning to the alert, of those found; None without any.
        pages: Median number of pages that one of them caused, of those found; None without any.
    """

    kind: str
    incidents: int
    found: int
    slides: float | None
    pages: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What somebody's alerts are worth.

    Attributes:
        name: Whose alerts.
        kinds: By kind of incident that should wake somebody.
        recall: Part of those incidents that were found.
        slides: Median slides from the beginning to the alert, over all that were found; None without any.
        alerts: How many alerts there were.
        pages: How many times somebody was told: alerts of a service that is already in trouble are no new page.
        precision: Part of the alerts that an incident explains; None without any.
        false_per_hour: Alerts an hour that nothing explains.
        surges: How many harmless surges there were.
        surges_paged: How many of them somebody was woken for.
        shifts: How many lasting shifts there were.
        shifts_paged_once: How many of them were one page, and never another.
    """

    name: str
    kinds: tuple[KindFigures, ...]
    recall: float | None
    slides: float | None
    alerts: int
    pages: int
    precision: float | None
    false_per_hour: float
    surges: int
    surges_paged: int
    shifts: int
    shifts_paged_once: int

    def as_data(self) -> dict[str, Any]:
        """Give plain data for JSON."""
        return asdict(self)


def compare(recordings: Sequence[Mapping[str, Run]], thresholds: Thresholds) -> list[Figures]:
    """Judge the flow and the others on the same recordings.

    Args:
        recordings: For each seed its runs by name, as `simulated_runs.plans` names them.
        thresholds: Of the fixed threshold; chosen on another seed.
    """
    runs = [(name, run) for one in recordings for name, run in one.items()]
    grids = [grid_of(run.table) for _, run in runs]
    told: dict[str, list[list[Alert]]] = {
        FLOW: [run.alerts for _, run in runs],
        THRESHOLD: [
            threshold_alerts(grid, thresholds, quiet_ms=_quiet_ms(run))
            for grid, (_, run) in zip(grids, runs, strict=True)
        ],
        GRAFANA: [grafana_alerts(grid) for grid in grids],
        GRAFANA_AT_ONCE: [grafana_alerts(grid, for_minutes=0) for grid in grids],
    }
    return [figures(name, runs, alerts) for name, alerts in told.items()]


def choose_thresholds(run: Run) -> Thresholds:
    """Choose the fixed thresholds that are best on a recording, with its labels: the highest F1, signal by signal."""
    grid, chosen = grid_of(run.table), _OFF
    for hold in _HOLDS:
        held = replace(_OFF, hold_slides=hold)
        best: dict[str, tuple[float, float]] = {}
        for field, value in candidates(grid):
            alone = _with(held, {field: value})
            best[field] = max(best.get(field, (-1.0, 0.0)), (_f1(run, grid, alone), value))
        together = _with(held, {field: value for field, (score, value) in best.items() if score > 0})
        if _f1(run, grid, together) > _f1(run, grid, chosen):
            chosen = together
    return chosen


def figures(name: str, runs: Sequence[tuple[str, Run]], told: Sequence[Sequence[Alert]]) -> Figures:
    """Judge somebody's alerts on some recordings."""
    judged = [(kind, run, run.judge(alerts)) for (kind, run), alerts in zip(runs, told, strict=True)]
    told = [run.heard(alerts) for (_, run), alerts in zip(runs, told, strict=True)]
    outcomes = [
        (run, outcome)
        for kind, run, judgement in judged
        for outcome in judgement.outcomes
        if outcome.incident.page and kind != "deployments"
    ]
    kinds = sorted({outcome.incident.kind for _, outcome in outcomes})
    surges = [one for _, _, judgement in judged for one in judgement.outcomes if not one.incident.page]
    shifts = [
        (alerts, one)
        for (kind, _, judgement), alerts in zip(judged, told, strict=True)
        for one in judgement.outcomes
        if kind == "deployments"
    ]
    alerts = sum(len(own) for own in told)
    false = sum(len(judgement.false_alerts) for _, _, judgement in judged)
    found = [_slides(run, outcome) for run, outcome in outcomes if outcome.verdict is Verdict.FOUND]
    wanted = [outcome for _, outcome in outcomes if outcome.verdict in {Verdict.FOUND, Verdict.MISSED}]
    return Figures(
        name=name,
        kinds=tuple(_of_kind(kind, [one for one in outcomes if one[1].incident.kind == kind]) for kind in kinds),
        recall=len(found) / len(wanted) if wanted else None,
        slides=median(found) if found else None,
        alerts=alerts,
        pages=sum(len(pages_of(own)) for own in told),
        precision=(alerts - false) / alerts if alerts else None,
        false_per_hour=false / max(sum(run.hours for _, run, _ in judged), 1e-9),
        surges=len(surges),
        surges_paged=sum(one.verdict is Verdict.PAGED for one in surges),
        shifts=len(shifts),
        shifts_paged_once=sum(_paged_once(alerts, one) for alerts, one in shifts),
    )


def render(compared: Sequence[Figures]) -> Iterator[str]:
    """Write a table of the flow's kinds of incidents, and one line for everybody."""
    flow = compared[0]
    yield f"{'incident':18}{'number':>7}" + "".join(f"{one.name:>24}" for one in compared)
    for row, kind in enumerate(flow.kinds):
        cells = (_found(one.kinds[row]) for one in compared)
        yield f"{kind.kind:18}{kind.incidents:>7}" + "".join(f"{cell:>24}" for cell in cells)
    yield "found, and the median slides from their beginning to the alert"
    yield ""
    lines: tuple[tuple[str, Callable[[Figures], str]], ...] = (
        ("recall", lambda one: _ratio(one.recall)),
        ("median slides", lambda one: _number(one.slides)),
        ("alerts", lambda one: f"{one.alerts}"),
        ("pages", lambda one: f"{one.pages}"),
        ("precision", lambda one: _ratio(one.precision)),
        ("false alerts an hour", lambda one: f"{one.false_per_hour:.2f}"),
        ("surges paged", lambda one: f"{one.surges_paged} of {one.surges}"),
        ("shifts paged once", lambda one: f"{one.shifts_paged_once} of {one.shifts}"),
    )
    for label, cell in lines:
        yield f"{label:25}" + "".join(f"{cell(one):>24}" for one in compared)
    yield ""
    yield (
        f"{GRAFANA}: adaptive.yml as published, evaluated every minute, held for {FOR_MINUTES} minutes; its bands"
        " average over 26 hours and want that much history. At once: the same without the wait."
    )


def shortcomings(recordings: Sequence[Mapping[str, Run]]) -> Iterator[str]:
    """Write what the flow missed and what it said wrongly, a line each, so that somebody can look at it."""
    for one in recordings:
        for name, run in one.items():
            judgement = run.judge(run.alerts)
            where = f"seed {run.plan.seed}, {name}"
            for outcome in judgement.outcomes:
                if outcome.verdict is Verdict.MISSED:
                    yield f"missed: {where}: {outcome.incident.description}, from {_clock(outcome.incident.start_ms)}"
            for alert in judgement.false_alerts:
                about = f"{alert.service} {alert.endpoint}".strip()
                yield f"false: {where}: {alert.alertname} of {about} at {_clock(alert.fired_ms)}"


def _clock(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _with(thresholds: Thresholds, values: Mapping[str, float]) -> Thresholds:
    return replace(thresholds, **values)  # type: ignore[arg-type]  # the one field that is no float is never named


def _quiet_ms(run: Run) -> int:
    return run.length_ms + run.length_ms // 2


def _slides(run: Run, outcome: Outcome) -> float:
    return (outcome.after_ms or 0) / run.slide_ms


def _of_kind(kind: str, outcomes: Sequence[tuple[Run, Outcome]]) -> KindFigures:
    found = [(run, outcome) for run, outcome in outcomes if outcome.verdict is Verdict.FOUND]
    judged = [outcome for _, outcome in outcomes if outcome.verdict in {Verdict.FOUND, Verdict.MISSED}]
    return KindFigures(
        kind=kind,
        incidents=len(judged),
        found=len(found),
        slides=median(_slides(run, outcome) for run, outcome in found) if found else None,
        pages=median(len(pages_of(outcome.alerts)) for _, outcome in found) if found else None,
    )


def _paged_once(alerts: Sequence[Alert], shift: Outcome) -> bool:
    """Tell whether a lasting shift was one page from its beginning to the end of the recording."""
    services = shift.incident.services
    own = [one for one in alerts if one.service in services and one.fired_ms > shift.incident.start_ms]
    return len(pages_of(own)) == 1


def _f1(run: Run, grid: Grid, thresholds: Thresholds) -> float:
    alerts = threshold_alerts(grid, thresholds, quiet_ms=_quiet_ms(run))
    judgement = run.judge(alerts)
    found, missed = judgement.count(Verdict.FOUND), judgement.count(Verdict.MISSED)
    recall = found / max(found + missed, 1)
    precision = 1 - len(judgement.false_alerts) / max(len(alerts), 1)
    return 2 * recall * precision / (recall + precision) if recall and precision else 0.0


def _found(kind: KindFigures) -> str:
    return f"{kind.found} of {kind.incidents}, {_number(kind.slides)}"


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"


def _number(number: float | None) -> str:
    return "–" if number is None else f"{number:.1f}"

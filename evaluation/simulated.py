"""`python -m evaluation simulated`: the flow on labelled worlds, beside a fixed threshold and Grafana's rules."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cli.explain_series import NothingToExplainError, choose
from evaluation import simulated_report
from evaluation.simulated_runs import plans, run
from flows.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evaluation.simulated_runs import Run
    from flows.settings import Settings
    from simulator.stream import Plan

_UNIT_MS: Final = {"m": 60_000, "h": 3_600_000}
_SHORTEST_MS: Final = 2_700_000
_DEFAULT_SEEDS: Final = (101, 102)


def simulated(
    *,
    seed: Annotated[list[int] | None, typer.Option(help="Seed of a world; may be given again. 101 and 102.")] = None,
    duration: Annotated[str, typer.Option(help="Event time of each recording, such as 90m or 30h.")] = "3h",
    warm_up: Annotated[
        str, typer.Option(help="Beginning of each that is not judged; Grafana's rules want 26h.")
    ] = "0h",
    incidents_per_hour: Annotated[float, typer.Option(min=0.1, help="Of the random recordings, about.")] = 12.0,
    rate: Annotated[float, typer.Option(min=1.0, help="Events per second of event time, a day's average.")] = 240.0,
    as_json: Annotated[bool, typer.Option("--json", help="Figures for programs.")] = False,
    series: Annotated[str | None, typer.Option(help="Series to draw, such as search/query; with --plot.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it in the first seed's random recording, to FILE: .html, .svg or .png.")
    ] = None,
) -> None:
    """Run simulated worlds with labelled incidents through the flow's operators, and tell what its alerts are worth.

    Each seed is three recordings: incidents at random, surges that should wake nobody, and shifts that last. No broker
    is needed: everything is a function of the seed and of the settings for windows, detection and alerts.
    """
    seeds = tuple(dict.fromkeys(seed or _DEFAULT_SEEDS))
    warm_up_ms, settings = _span_ms("--warm-up", warm_up), _settings()
    duration_ms = _duration_ms(duration, warm_up_ms)
    if (series is None) != (plot is None):
        _fail("`--plot` and `--series` need each other, or it isn't known what to draw, or where to")
    chosen = [
        plans(
            one,
            duration_ms=duration_ms,
            incidents_per_hour=incidents_per_hour,
            rate_per_s=rate,
            warm_up_ms=warm_up_ms,
        )
        for one in (*seeds, max(seeds) + 1)
    ]
    *judged, training = chosen
    with _progress(sum(len(one) for one in judged) + 1, duration_ms, settings, warm_up_ms) as play:
        recordings = [{name: play(f"seed {plan.seed}, {name}", plan) for name, plan in one.items()} for one in judged]
        other = play(f"seed {training['random'].seed}, for the threshold", training["random"])
    if series is not None and plot is not None:
        _draw(recordings[0]["random"], series, plot)
    thresholds = simulated_report.choose_thresholds(other)
    compared = simulated_report.compare(recordings, thresholds)
    if as_json:
        data = {"seeds": seeds, "hours": _hours(recordings), "compared": [one.as_data() for one in compared]}
        typer.echo(json.dumps(data, indent=2))
        return
    events = sum(run.events for one in recordings for run in one.values())
    judged_of = f"{_hours(recordings):g} hours judged" + (f", each after {warm_up}" if warm_up_ms else "")
    typer.echo(f"seeds {', '.join(map(str, seeds))}: {events:,} events, {judged_of}\n")
    for line in simulated_report.render(compared):
        typer.echo(line)
    for line in simulated_report.shortcomings(recordings):
        typer.echo(line)
    typer.echo(
        f"static threshold: P99 over {thresholds.latency_ms:.0f} ms, error ratio over {thresholds.errors_ratio:.3f},"
        f" under {thresholds.traffic_per_s:.2f} requests/s, {thresholds.hold_slides} windows in a row: the best on seed"
        f" {max(seeds) + 1}, by its labels"
    )


def _duration_ms(text: str, warm_up_ms: int) -> int:
    milliseconds = _span_ms("--duration", text)
    if milliseconds - warm_up_ms < _SHORTEST_MS:
        least = f"{_SHORTEST_MS // _UNIT_MS['m']}m"
        _fail(f"`--duration` must be at least {least} more than the warm-up, or nothing happens in it; got {text!r}")
    return milliseconds


def _span_ms(option: str, text: str) -> int:
    found = re.fullmatch(r"(\d+)([mh])", text.strip())
    if found is None:
        _fail(f"`{option}` must be a number with m or h, such as 90m; got {text!r}")
    return int(found[1]) * _UNIT_MS[found[2]]


def _draw(recording: Run, name: str, path: Path) -> None:
    try:
        from evaluation import plot as plots  # noqa: PLC0415 - it needs an extra
    except ImportError:
        _fail("`--plot` needs the extra `notebooks`: pip install 'tailmark[notebooks]'")
    try:
        service, endpoint = choose(name, recording.table, ())
        own = recording.table.filter(service=service, endpoint=endpoint)
        chart = plots.series_chart(own, alerts=recording.alerts, incidents=recording.incidents)
        plots.save(chart, path)
    except (NothingToExplainError, OSError, ValueError) as error:
        _fail(f"`--plot` can't be drawn: {error}")


def _fail(message: str) -> NoReturn:
    typer.echo(f"evaluation: {message}", err=True)
    raise typer.Exit(2)


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _hours(recordings: list[dict[str, Run]]) -> float:
    return sum(run.hours for one in recordings for run in one.values())


@contextmanager
def _progress(runs: int, duration_ms: int, settings: Settings, warm_up_ms: int) -> Iterator[Callable[[str, Plan], Run]]:
    """Show how far the recordings are, on a terminal; give the function that plays one."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=runs * duration_ms)
        done = 0

        def play(label: str, plan: Plan) -> Run:
            nonlocal done
            progress.update(task, description=label)
            before = done * duration_ms
            done += 1
            return run(
                plan,
                settings,
                warm_up_ms=warm_up_ms,
                on_progress=lambda at_ms: progress.update(task, completed=before + at_ms - plan.start_ms),
            )

        yield play

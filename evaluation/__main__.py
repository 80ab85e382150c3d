"""Detectors against labelled truth: `python -m evaluation score IN OUT`, `report IN --labels FILE`, `simulated`."""

from __future__ import annotations

import time
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from evaluation import recordings, report
from evaluation.episodes import openings
from evaluation.judgement import Labelled
from evaluation.plot_recording import plot
from evaluation.replay import DETECTORS
from evaluation.simulated import simulated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

app.command()(simulated)
app.command()(plot)

_DETECTOR_HELP = f"Detector: {', '.join(DETECTORS)}."


@app.command()
def score(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder of CSV files with `timestamp,value`.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the same files with scores.")],
    detector: Annotated[str, typer.Option(help=_DETECTOR_HELP)] = "default",
) -> None:
    """Score every file below IN, and write it below OUT as `timestamp,value,score,anomalous,alert`."""
    found = _read(source)
    scores, us_per_row = _score(found, detector)
    for recording, values in zip(found, scores, strict=True):
        alerts = openings(values, report.SHIPPED_THRESHOLD)
        recordings.write_scored(target / recording.name, recording, values, alerts)
    typer.echo(f"{len(found)} files, {us_per_row:.2f} µs of CPU a row", err=True)


@app.command(name="report")
def report_on(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Folder of CSV files: recordings, or what `score` wrote.")
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="JSON with labelled spans of time for each file; without, the files need a `label` column."),
    ] = None,
    detector: Annotated[str, typer.Option(help=_DETECTOR_HELP + " Files that have scores keep them.")] = "default",
) -> None:
    """Tell what the alerts are worth on labelled files."""
    found = _read(source)
    spans = _spans(found, labels)
    chosen = [recording for recording in found if recording.name in spans and len(recording.value)]
    if not chosen:
        raise _refusal("every labelled file is empty, so nothing can be judged")
    given = [recording.score for recording in chosen if recording.score is not None]
    if len(given) == len(chosen):
        scores, us_per_row, name = given, None, "as scored"
    else:
        (scores, us_per_row), name = _score(chosen, detector), detector
    series = [Labelled(r, s, spans[r.name]) for r, s in zip(chosen, scores, strict=True)]
    for line in report.render(name, series, us_per_row):
        typer.echo(line)


def _read(folder: Path) -> list[recordings.Recording]:
    try:
        return recordings.read_all(folder)
    except (recordings.RecordingError, OSError) as error:
        raise _refusal(recordings.reason(error)) from error


def _spans(found: list[recordings.Recording], labels: Path | None) -> dict[str, list[tuple[float, float]]]:
    if labels is None:
        spans = {one.name: recordings.spans_of(one) for one in found if one.label is not None}
        if not spans:
            raise _refusal("`--labels` is needed, or nothing can be judged: no file has a `label` column")
        return spans
    try:
        return recordings.read_labels(labels, found)
    except (recordings.RecordingError, OSError) as error:
        raise _refusal(recordings.reason(error)) from error


def _score(found: list[recordings.Recording], name: str) -> tuple[list[NDArray[np.float64]], float]:
    if name not in DETECTORS:
        raise _refusal(f"`--detector` must be one of {', '.join(DETECTORS)}, or there is nothing to run; got {name!r}")
    start = time.process_time()
    scores = DETECTORS[name]().score(found)
    seconds = time.process_time() - start
    return scores, seconds / max(sum(len(one.value) for one in found), 1) * 1e6


def _refusal(reason: object) -> typer.Exit:
    typer.echo(f"evaluation: {reason}", err=True)
    return typer.Exit(2)


if __name__ == "__main__":
    app(prog_name="python -m evaluation")

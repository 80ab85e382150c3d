"""`python -m evaluation plot`: a recording with its band, score, alerts and labels."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, NoReturn

import numpy as np
import polars as pl
import typer

from evaluation import recordings
from evaluation.episodes import openings
from evaluation.replay import DETECTORS, Default
from evaluation.report import SHIPPED_THRESHOLD

if TYPE_CHECKING:
    from evaluation.recordings import Recording
    from operators.kernels.scoring import Verdicts


def plot(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder of CSV files with `timestamp,value`.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The file in it, such as folder/file.csv.")],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where to: .html, .svg or .png.")],
    *,
    labels: Annotated[
        Path | None, typer.Option(help="JSON with labelled spans, as `report` takes; or a `label` column.")
    ] = None,
    detector: Annotated[str, typer.Option(help=f"Detector: {', '.join(DETECTORS)}.")] = "default",
) -> None:
    """Draw a recording: its values, the band of the default detector, the score, alerts, and labelled spans."""
    try:
        from evaluation import plot as plots  # noqa: PLC0415 - it needs an extra
    except ImportError:
        _fail("a plot needs the extra `notebooks`: pip install 'tailmark[notebooks]'")
    if target.suffix not in plots.SUFFIXES:
        _fail(f"`FILE` must end with one of {', '.join(plots.SUFFIXES)}, or its form is not known; got {target}")
    if detector not in DETECTORS:
        _fail(f"`--detector` must be one of {', '.join(DETECTORS)}, or there is nothing to run; got {detector!r}")
    try:
        recording = recordings.read(source / name, name)
        spans = (
            recordings.read_labels(labels, [recording])[recording.name] if labels else recordings.spans_of(recording)
        )
        rows = rows_of(recording, detector)
        opens = openings(rows["score"].to_numpy(), SHIPPED_THRESHOLD)
        chart = plots.recording_chart(recording, rows, alerts_ms=rows["at"].filter(opens).to_list(), spans=spans)
        plots.save(chart, target)
    except (recordings.RecordingError, OSError) as error:
        _fail(recordings.reason(error))


def rows_of(recording: Recording, detector: str) -> pl.DataFrame:
    """Score a recording, and tell what the default detector expected of each row.

    Args:
        recording: The recording.
        detector: Whose score; the band is that of the default one.

    Returns:
        `at` (ms), `value`, `score`, `expected`, `lower` and `upper`; null where there is none.
    """
    seen: list[tuple[float, float, float]] = []

    def watch(verdicts: Verdicts) -> None:
        upper, lower = verdicts.edge[:, 0]
        seen.append((float(verdicts.expected[0, 0]), float(lower), float(upper)))

    score = Default(watch=watch).score([recording])[0]
    if detector != "default":
        score = DETECTORS[detector]().score([recording])[0]
    expected, lower, upper = np.array(seen).T
    columns = {"value": recording.value, "score": score, "expected": expected, "lower": lower, "upper": upper}
    rows = pl.DataFrame({"at": np.rint(recording.time_s * 1000).astype(np.int64), **columns}).fill_nan(None)
    known = pl.col("upper").is_not_null()
    return rows.with_columns(pl.when(known).then(pl.col("expected")).alias("expected"))


def _fail(message: str) -> NoReturn:
    typer.echo(f"evaluation: {message}", err=True)
    raise typer.Exit(2)

"""Recorded series as the Numenta Anomaly Benchmark keeps them: `timestamp,value`, one file each, and their labels."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TextIO, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_SUFFIXES: Final = (".csv", ".csv.gz")


class RecordingError(ValueError):
    """A file that is no recording: no rows, no `timestamp` or `value` column, or a cell that can't be read."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded series.

    Attributes:
        name: Path of its file below the folder it was read from, with `/` between the parts.
        timestamp: The timestamps as they stand in the file, length n.
        time_s: Shape (n,), float64: the same in seconds since the epoch; local times count as UTC.
        value: Shape (n,), float64; NaN for an empty cell.
        label: Shape (n,), bool: rows labelled as anomalous by a `label` column; None without one.
        score: Shape (n,), float64: what a `score` column says; None without one.
    """

    name: str
    timestamp: list[str]
    time_s: NDArray[np.float64]
    value: NDArray[np.float64]
    label: NDArray[np.bool_] | None = None
    score: NDArray[np.float64] | None = None


def read_all(folder: Path) -> list[Recording]:
    """Read every CSV file below a folder, sorted by name.

    Raises:
        RecordingError: There is no file, or one that can't be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.name.endswith(_SUFFIXES) and path.is_file())
    if not paths:
        raise RecordingError(f"`{folder}` holds no CSV file, so there is nothing to score")
    return [read(path, path.relative_to(folder).as_posix()) for path in paths]


def read(path: Path, name: str) -> Recording:
    """Read one file.

    Args:
        path: A CSV file, perhaps compressed, with the columns `timestamp` (ISO or seconds since the epoch) and `value`.
        name: What to call it.

    Raises:
        RecordingError: It is not such a file.
    """
    with _open(path, "rt") as lines:
        reader = csv.DictReader(lines)
        if not {"timestamp", "value"} <= set(reader.fieldnames or ()):
            raise RecordingError(f"`{path}` must have the columns `timestamp` and `value`; it has {reader.fieldnames}")
        rows = list(reader)
    if not rows:
        raise RecordingError(f"`{path}` has no rows, so it can't be scored")
    timestamp = [row["timestamp"] for row in rows]
    try:
        time_s = np.array([seconds(text) for text in timestamp])
        value = np.array([float(row["value"] or "nan") for row in rows])
        label = np.array([float(row["label"]) > 0 for row in rows]) if "label" in rows[0] else None
        score = np.array([float(row["score"]) for row in rows]) if "score" in rows[0] else None
    except (ValueError, TypeError) as error:
        raise RecordingError(f"`{path}` has a cell that can't be read: {error}") from error
    return Recording(name, timestamp, time_s, value, label, score)


def seconds(text: str) -> float:
    """Read a timestamp: seconds since the epoch or ISO 8601; without a zone it is taken as UTC."""
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def write_scored(path: Path, recording: Recording, score: NDArray[np.float64], alert: NDArray[np.bool_]) -> None:
    """Write `timestamp,value,score,anomalous,alert`, one row for each row of the recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(path, "wt") as lines:
        writer = csv.writer(lines)
        writer.writerow(("timestamp", "value", "score", "anomalous", "alert"))
        cells = zip(recording.timestamp, recording.value.tolist(), score.tolist(), alert.tolist(), strict=True)
        writer.writerows((when, value, f"{s:.6f}", int(s >= 1), int(opens)) for when, value, s, opens in cells)


def read_labels(path: Path, recordings: Iterable[Recording]) -> dict[str, list[tuple[float, float]]]:
    """Read labelled spans of time: JSON, `{"file": [[start, end], …]}` as in NAB's windows.

    Returns:
        For each recording that the file names, its spans in seconds, first to last inclusive, sorted.

    Raises:
        RecordingError: The file is not like that, or names none of the recordings.
    """
    try:
        found = json.loads(path.read_text())
        spans = {name: sorted((seconds(str(a)), seconds(str(b))) for a, b in pairs) for name, pairs in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordingError(f'`{path}` must be JSON like {{"file": [["start", "end"]]}}: {error}') from error
    chosen = {recording.name: spans[recording.name] for recording in recordings if recording.name in spans}
    if not chosen:
        raise RecordingError(f"`{path}` names none of the recordings, so nothing can be judged")
    return chosen


def spans_of(recording: Recording) -> list[tuple[float, float]]:
    """Return the spans that a `label` column marks: runs of labelled rows."""
    if recording.label is None:
        return []
    edges = np.diff(np.concatenate(([0], recording.label.astype(np.int8), [0])))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return [(float(recording.time_s[a]), float(recording.time_s[b])) for a, b in zip(starts, ends, strict=True)]


def _open(path: Path, mode: Literal["rt", "wt"]) -> TextIO:
    if path.suffix == ".gz":
        return cast("TextIO", gzip.open(path, mode, newline=""))
    return cast("TextIO", path.open(mode, newline=""))

"""Recorded series as the Numenta Anomaly Benchmark keeps them: `timestamp,value`, one file each, and their labels."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TextIO, cast

import numpy as np

from evaluation.csv_table import number, seconds, table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_SUFFIXES: Final = (".csv", ".csv.gz")


class RecordingError(ValueError):
    """A file that is no recording: no `timestamp` or `value` column, or a cell that can't be read."""


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
        path: A CSV file, perhaps compressed, with columns `timestamp` and `value`, see `csv_table`; it may be empty.
        name: What to call it.

    Raises:
        RecordingError: It is not such a file.
    """
    with _open(path, "rt") as lines:
        names, rows = table_of(lines)
    if names and not {"timestamp", "value"} <= set(names):
        raise RecordingError(f"`{path}` must have the columns `timestamp` and `value`; it has {names}")
    timestamp = [row["timestamp"] for row in rows]
    return Recording(
        name,
        timestamp,
        _column(path, rows, "timestamp", seconds),
        _column(path, rows, "value", number),
        _column(path, rows, "label", number) > 0 if "label" in names else None,
        _column(path, rows, "score", number) if "score" in names else None,
    )


def _column(
    path: Path, rows: list[dict[str, str]], name: str, read_cell: Callable[[str], float]
) -> NDArray[np.float64]:
    values = np.empty(len(rows))
    for place, row in enumerate(rows):
        try:
            values[place] = read_cell(row[name])
        except (ValueError, OverflowError) as error:
            raise RecordingError(
                f"`{path}` has a cell that can't be read: `{name}` of row {place + 1}: {error}"
            ) from error
    return values


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


def reason(error: Exception) -> str:
    """Say in one line why a file could not be read or written."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"`{error.filename}`: {error.strerror.lower()}"
    return str(error)


def _open(path: Path, mode: Literal["rt", "wt"]) -> TextIO:
    # A mark of byte order is read over and never written; what is no UTF-8 stands in cells that nobody reads.
    encoding, errors = ("utf-8-sig", "replace") if mode == "rt" else ("utf-8", "strict")
    if path.suffix == ".gz":
        return cast("TextIO", gzip.open(path, mode, newline="", encoding=encoding, errors=errors))
    return cast("TextIO", path.open(mode, newline="", encoding=encoding, errors=errors))

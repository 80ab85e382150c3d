"""`python -m evaluation` on files: what it writes, what it tells, what it refuses."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from evaluation.__main__ import app
from evaluation.recordings import read, seconds

if TYPE_CHECKING:
    from pathlib import Path

START_S = 1_600_000_000
ROWS = 700


def values(seed: int) -> np.ndarray:
    series = 50 + 5 * np.sin(np.arange(ROWS) * 2 * np.pi / 288) + np.random.default_rng(seed).normal(0, 1, ROWS)
    series[500:510] += 40
    series[650] -= 40
    return series


def write(path: Path, series: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{START_S + row * 300},{value}" for row, value in enumerate(series)]
    path.write_text("\n".join(["timestamp,value", *lines]) + "\n")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a.csv", "folder/b.csv", "folder/c.csv")):
        write(tmp_path / "in" / name, values(seed))
    return tmp_path / "in"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.json"
    span = [START_S + 495 * 300, START_S + 520 * 300]
    path.write_text(json.dumps({name: [span] for name in ("a.csv", "folder/b.csv", "folder/c.csv", "elsewhere.csv")}))
    return path


def scored(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_score_writes_every_file_with_every_row(source: Path, tmp_path: Path) -> None:
    run("score", source, tmp_path / "out")
    for name in ("a.csv", "folder/b.csv", "folder/c.csv"):
        rows = scored(tmp_path / "out" / name)
        assert list(rows[0]) == ["timestamp", "value", "score", "anomalous", "alert"]
        original = read(source / name, name)
        assert [row["timestamp"] for row in rows] == original.timestamp
        assert [float(row["value"]) for row in rows] == original.value.tolist()


def test_deviations_in_both_directions_are_alerts(source: Path, tmp_path: Path) -> None:
    run("score", source, tmp_path / "out")
    rows = scored(tmp_path / "out" / "a.csv")
    assert rows[500]["anomalous"] == rows[500]["alert"] == "1"
    assert rows[650]["anomalous"] == "1"
    assert all((row["anomalous"] == "1") == (float(row["score"]) >= 1) for row in rows)


def test_episode_is_one_alert(source: Path, tmp_path: Path) -> None:
    run("score", source, tmp_path / "out")
    rows = scored(tmp_path / "out" / "a.csv")
    assert sum(row["alert"] == "1" for row in rows[495:520]) == 1


@pytest.mark.parametrize("detector", ["default", "knn", "random"])
@pytest.mark.parametrize("stop", [1, 30, 31, 32, 505])
def test_prefix_is_scored_like_the_beginning_of_the_whole(
    source: Path, tmp_path: Path, detector: str, stop: int
) -> None:
    write(tmp_path / "prefix" / "a.csv", values(0)[:stop])
    run("score", source, tmp_path / "out", "--detector", detector)
    run("score", tmp_path / "prefix", tmp_path / "cut", "--detector", detector)
    assert scored(tmp_path / "cut" / "a.csv") == scored(tmp_path / "out" / "a.csv")[:stop]


def test_file_is_scored_alone_as_among_others(source: Path, tmp_path: Path) -> None:
    write(tmp_path / "single" / "a.csv", values(0))
    run("score", source, tmp_path / "out")
    run("score", tmp_path / "single", tmp_path / "alone")
    assert scored(tmp_path / "alone" / "a.csv") == scored(tmp_path / "out" / "a.csv")


def test_report_tells_what_the_alerts_are_worth(source: Path, labels: Path) -> None:
    text = run("report", source, "--labels", labels)
    assert "3 series, 2100 rows" in text
    for part in (
        "standard",
        "low false positives",
        "low false negatives",
        "by chance",
        "delay-7 F1",
        "µs of CPU a row",
        "to develop with",
        "held out",
    ):
        assert part in text
    shipped = next(line for line in text.splitlines() if line.startswith("default, shipped"))
    assert float(shipped.split()[4]) == 1.0


def test_report_reads_the_scores_that_a_file_has(source: Path, labels: Path, tmp_path: Path) -> None:
    run("score", source, tmp_path / "out")
    ours, theirs = run("report", source, "--labels", labels), run("report", tmp_path / "out", "--labels", labels)
    table = [line.split()[1:] for line in ours.splitlines() if line.startswith(("standard", "low"))]
    assert table == [line.split()[1:] for line in theirs.splitlines() if line.startswith(("standard", "low"))]


def test_missing_values_and_constant_series_are_scored(tmp_path: Path) -> None:
    path = tmp_path / "in" / "gaps.csv"
    path.parent.mkdir()
    lines = [f"2024-01-01 {row // 60:02}:{row % 60:02}:00,{'' if row % 7 == 0 else 5}" for row in range(300)]
    path.write_text("\n".join(["timestamp,value", *lines]))
    run("score", tmp_path / "in", tmp_path / "out")
    assert all(float(row["score"]) < 1 for row in scored(tmp_path / "out" / "gaps.csv"))


def test_timestamps_are_iso_or_seconds() -> None:
    assert seconds("2024-01-01 00:00:00") == seconds("1704067200") == seconds("2024-01-01T01:00:00+01:00") == 1704067200


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n", "`timestamp` and `value`"),
        ("timestamp,value\nx,1\n", "can't be read"),
    ],
    ids=["other columns", "no time"],
)
def test_file_that_is_no_recording_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    result = CliRunner().invoke(app, ["score", str(tmp_path), str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "bad.csv" in result.output
    assert reason in result.output


def test_file_that_is_not_there_is_named_in_one_line(source: Path, tmp_path: Path) -> None:
    labels = str(tmp_path / "nowhere.json")
    for arguments in (["report", str(source), "--labels", labels], ["plot", str(source), "nowhere.csv", "a.svg"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert "Errno" not in result.output
        assert result.output.endswith("`: no such file or directory\n")
        assert result.output.count("\n") == 1


def test_unknown_detector_is_refused(source: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["score", str(source), str(tmp_path / "out"), "--detector", "oracle"])
    assert result.exit_code == 2
    assert "oracle" in result.output


ODD = {
    "milliseconds.csv": "timestamp,value\n1600000000000,5\n1600000300000,6\n",
    "no-header.csv": "1600000000,5\n1600000300,6\n",
    "semicolons.csv": "\ufeffTimestamp; Value ;host\n2020-09-13 12:26:40;5;a\n2020-09-13T12:31:40Z;6;b\n",
    "short-rows.csv": "value,timestamp,label\r\n5,1600000000\r\n\r\n6,1600000300,\r\n",
    "unknown.csv": "timestamp,value\n1600000000,NaN\n1600000300,null\n1600000600,\n1600000900,inf\n",
    "empty.csv": "",
    "header-only.csv": "timestamp,value\n",
    "one-row.csv": "timestamp,value\n1600000000,5\n",
    "back-in-time.csv": "timestamp,value\n1600000600,5\n1600000000,6\n1600000000,6\n0,7\n",
}
"""Files as people have them, and how many rows each has."""


def test_odd_files_are_scored_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, text in ODD.items():
        (tmp_path / "in" / name).write_text(text)
    for detector in ("default", "knn", "random"):
        run("score", tmp_path / "in", tmp_path / "out", "--detector", detector)
        rows = {name: len(scored(tmp_path / "out" / name)) for name in ODD}
        assert rows == dict.fromkeys(ODD, 2) | {"unknown.csv": 4, "empty.csv": 0, "header-only.csv": 0} | {
            "one-row.csv": 1,
            "back-in-time.csv": 4,
        }
    assert read(tmp_path / "in" / "milliseconds.csv", "").time_s.tolist() == [1_600_000_000, 1_600_000_300]
    assert read(tmp_path / "in" / "semicolons.csv", "").time_s.tolist() == [1_600_000_000, 1_600_000_300]
    assert (tmp_path / "out" / "empty.csv").read_text().split() == ["timestamp,value,score,anomalous,alert"]


def test_odd_files_are_judged(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, text in ODD.items():
        (tmp_path / "in" / name).write_text(text)
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({name: [[1_600_000_000, 1_600_000_300]] for name in ODD}))
    assert "7 series, 17 rows" in run("report", tmp_path / "in", "--labels", labels)


@pytest.mark.parametrize("change", ["flat", "level", "unit", "gap", "twice"])
def test_series_that_changes_its_nature_is_scored_to_its_end(tmp_path: Path, change: str) -> None:
    series = values(4)
    times = [START_S + row * 300 for row in range(ROWS)]
    if change == "flat":
        series[300:] = 5.0
    elif change == "level":
        series[300:] += 1e6
    elif change == "unit":
        series[300:] *= 1e-3
    elif change == "gap":
        times[300:] = [time_s + 86_400 * 400 for time_s in times[300:]]
    else:
        times[300:600] = [times[299]] * 300
    path = tmp_path / "in" / "series.csv"
    path.parent.mkdir()
    lines = [f"{time_s},{value}" for time_s, value in zip(times, series, strict=True)]
    path.write_text("\n".join(["timestamp,value", *lines]))
    run("score", tmp_path / "in", tmp_path / "out")
    rows = scored(tmp_path / "out" / "series.csv")
    assert len(rows) == ROWS
    assert all(0 <= float(row["score"]) < 1e6 for row in rows)
    assert sum(row["alert"] == "1" for row in rows) < 15

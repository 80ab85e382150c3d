"""`python -m evaluation plot`: a recording with its band, score, alerts and labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from evaluation.__main__ import app
from evaluation.plot import recording_chart
from evaluation.plot_recording import rows_of
from evaluation.recordings import read
from evaluation.replay import Default

if TYPE_CHECKING:
    from pathlib import Path

START_S = 1_600_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    values = 50 + np.random.default_rng(1).normal(0, 1, 500)
    values[400:410] += 40
    lines = [f"{START_S + row * 300},{value}" for row, value in enumerate(values)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("\n".join(["timestamp,value", *lines]) + "\n")
    (tmp_path / "labels.json").write_text(json.dumps({"a.csv": [[START_S + 399 * 300, START_S + 410 * 300]]}))
    return tmp_path


def test_band_of_a_recording_is_what_decides(folder: Path) -> None:
    recording = read(folder / "in" / "a.csv", "a.csv")
    rows = rows_of(recording, "default")
    np.testing.assert_array_equal(rows["score"].to_numpy(), Default().score([recording])[0])
    known = rows.drop_nulls()
    outside = (known["value"] > known["upper"]) | (known["value"] < known["lower"])
    assert outside.to_list() == (known["score"] >= 1).to_list()
    assert outside.sum() >= 1


def test_chart_of_a_recording_has_labels_alerts_and_the_score_below(folder: Path) -> None:
    recording = read(folder / "in" / "a.csv", "a.csv")
    rows = rows_of(recording, "knn")
    spec = recording_chart(recording, rows, alerts_ms=[rows["at"][400]], spans=[(START_S, START_S + 600)]).to_dict()
    value, score = spec["vconcat"]
    assert spec["title"]["text"] == "a.csv"
    assert value["layer"][1]["encoding"]["y"]["scale"]["domain"][0] < rows["value"].min()
    assert score["layer"][1]["encoding"]["y"]["title"] == "score"
    labelled = spec["datasets"][value["layer"][0]["data"]["name"]]
    assert [span["what"] for span in labelled] == ["labelled"]


def test_plot_is_written_where_it_was_asked_for(folder: Path) -> None:
    target = folder / "a.svg"
    result = CliRunner().invoke(
        app, ["plot", str(folder / "in"), "a.csv", str(target), "--labels", str(folder / "labels.json")]
    )
    assert result.exit_code == 0, result.output
    assert "a.csv" in target.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.csv", "a.gif"), "must end with one of .html, .svg, .png"),
        (("b.csv", "a.svg"), "no such file"),
        (("a.csv", "a.svg", "--detector", "magic"), "`--detector` must be one of"),
    ],
)
def test_plot_that_can_not_be_drawn_is_refused_in_one_line(
    folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = CliRunner().invoke(app, ["plot", str(folder / "in"), *arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1

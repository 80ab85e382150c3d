"""Plots: what is on them, in light and dark, in a file that needs nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from evaluation.plot import SUFFIXES, look_of, save, series_chart
from evaluation.simulated_runs import START_MS, Run, run
from flows.settings import Settings
from simulator.stream import Plan

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl


@pytest.fixture(scope="module")
def told() -> Run:
    """Ten minutes of the demo's story: search becomes slow."""
    return run(Plan(seed=7, start_ms=START_MS, duration_ms=600_000, rate_per_s=120.0), Settings())


@pytest.fixture(scope="module")
def query(told: Run) -> pl.DataFrame:
    return told.table.filter(service="search", endpoint="/query")


def test_plot_has_bands_anomalies_alerts_and_incidents_of_each_signal(told: Run, query: pl.DataFrame) -> None:
    spec = series_chart(query, alerts=told.alerts, incidents=told.incidents).to_dict()
    assert spec["title"]["text"] == "search /query"
    latency, errors, traffic = spec["vconcat"]

    def data_of(layer: dict[str, Any]) -> list[dict[str, Any]]:
        return spec["datasets"][layer["data"]["name"]]

    assert [panel["layer"][1]["encoding"]["y"]["title"] for panel in spec["vconcat"]] == [
        "P99, ms",
        "errors, ratio",
        "requests/s",
    ]
    assert [layer["mark"]["style"] for layer in latency["layer"][:6]] == [
        "incident", "band", "expected", "measured", "anomaly", "alert"
    ]  # fmt: skip
    rows = data_of(latency["layer"][3])
    assert len(rows) == len(query)
    assert max(row["score"] for row in rows) > 1
    assert [span["what"] for span in data_of(latency["layer"][5])] == ["LatencyAnomaly"]
    assert "search takes 4 times as long" in data_of(latency["layer"][0])[0]["what"]
    assert data_of(errors["layer"][0]) == data_of(traffic["layer"][5]) == []


def test_lines_of_two_series_are_never_mixed(told: Run) -> None:
    with pytest.raises(ValueError, match="must hold one series"):
        series_chart(told.table)


def test_page_follows_the_reader_into_the_dark_and_needs_no_network(query: pl.DataFrame, tmp_path: Path) -> None:
    save(series_chart(query), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "prefers-color-scheme: dark" in page
    assert json.dumps(look_of("dark")) in page
    assert json.dumps(look_of("light")) in page
    assert "<script src=" not in page


@pytest.mark.parametrize("look", ["light", "dark"])
def test_pictures_have_the_colours_of_their_look(query: pl.DataFrame, tmp_path: Path, look: str) -> None:
    chart = series_chart(query)
    save(chart, tmp_path / "picture.svg", look=look)
    assert look_of(look)["style"]["measured"]["color"] in (tmp_path / "picture.svg").read_text()
    save(chart, tmp_path / "picture.png", look=look)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert set(SUFFIXES) == {".html", ".svg", ".png"}

"""The flow on simulated worlds: what it finds, what it lets people sleep through, and how the figures come about."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
import pytest
from typer.testing import CliRunner

from evaluation.__main__ import app
from evaluation.rescoring import compare, rescore
from evaluation.simulated_report import shortcomings
from evaluation.simulated_runs import (
    PARTITIONS,
    START_MS,
    Deployments,
    Run,
    alerts_of,
    events_of,
    pages_of,
    plans,
    run,
)
from evaluation.window_table import SCHEMA, alert_table
from flows.detection_settings import DetectionSettings
from flows.settings import Settings, WindowSettings
from local.demo.matching import Alert, Verdict
from simulator.stream import Plan, record

if TYPE_CHECKING:
    from pathlib import Path

LENGTH_MS = 60_000


def alert(service: str, fired_s: int, resolved_s: int | None, endpoint: str = "/") -> Alert:
    resolved_ms = None if resolved_s is None else resolved_s * 1000
    return Alert("LatencyAnomaly", service, endpoint, "latency", "warning", fired_s * 1000, resolved_ms)


@pytest.mark.slow
def test_flow_finds_incidents_and_lets_surges_pass(tmp_path: Path) -> None:
    drawn = ["--series", "search/query", "--plot", str(tmp_path / "query.svg")]
    result = CliRunner().invoke(
        app, ["simulated", "--seed", "5", "--duration", "75m", "--rate", "120", "--json", *drawn]
    )
    assert result.exit_code == 0, result.output
    assert "search /query" in (tmp_path / "query.svg").read_text()
    told = json.loads(result.stdout)
    figures = {one["name"]: one for one in told["compared"]}
    flow, threshold = figures["tailmark"], figures["static threshold"]
    assert told["seeds"] == [5]
    assert sum(kind["incidents"] for kind in flow["kinds"]) >= 5
    assert flow["recall"] >= 0.8
    assert flow["precision"] >= 0.9
    assert flow["surges"] >= 3
    assert flow["surges_paged"] == 0
    assert flow["shifts"] == flow["shifts_paged_once"] >= 2
    assert flow["recall"] * flow["precision"] > threshold["recall"] * threshold["precision"]


def test_what_was_missed_and_what_was_wrong_is_named(recorded: Run) -> None:
    told = [change for change in recorded.transitions if change.labels["service"] != "search"]
    invented = replace(told[0], labels={**told[0].labels, "service": "nobody"}, fingerprint="0" * 16)
    worse = replace(recorded, transitions=(*told, invented))
    assert list(shortcomings([{"random": recorded}])) == []
    missed, false = shortcomings([{"random": worse}])
    assert missed.startswith("missed: seed 3, random: search takes 4 times as long from one moment to the next, from ")
    assert "of nobody /" in false


def test_plot_without_a_series_is_refused() -> None:
    result = CliRunner().invoke(app, ["simulated", "--plot", "a.html"])
    assert result.exit_code == 2
    assert "`--plot` and `--series` need each other" in result.stderr


@pytest.mark.parametrize("duration", ["1s", "ten", "30m"])
def test_duration_in_which_nothing_happens_is_refused_in_one_line(duration: str) -> None:
    result = CliRunner().invoke(app, ["simulated", "--duration", duration])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "`--duration` must be" in result.stderr


def test_what_happens_during_the_warm_up_is_not_judged(recorded: Run) -> None:
    later = replace(recorded, warm_up_ms=600_000)
    whole, part = recorded.judge(recorded.alerts), later.judge(later.alerts)
    assert {one.incident.kind for one in whole.outcomes} - {one.incident.kind for one in part.outcomes} == {
        "latency-step",
        "error-burst",
    }
    assert all(alert.fired_ms > START_MS + 600_000 for alert in later.heard(later.alerts))
    assert 0 < len(later.heard(later.alerts)) < len(recorded.alerts)
    assert later.hours == pytest.approx(recorded.hours / 2)


DEMO = Plan(seed=3, start_ms=START_MS, duration_ms=1_200_000, rate_per_s=100.0, scenario="demo")


@pytest.fixture(scope="module")
def recorded() -> Run:
    """Twenty minutes of the demo's story."""
    return run(DEMO, Settings())


def test_windows_rescored_from_their_records_have_the_scores_and_alerts_of_the_flow(recorded: Run) -> None:
    again = rescore(recorded.table, Settings())
    order = ["window_end_ms", "service", "endpoint"]
    assert again.table.schema == SCHEMA
    assert again.table.sort(order).equals(recorded.table.sort(order), null_equal=True)
    assert recorded.table["latency_score"].max() > 1
    assert set(alerts_of(again.transitions)) == set(recorded.alerts) != set()
    sent = sum(int(chunk.records.contents[:, 0].sum()) for chunk in record(DEMO, PARTITIONS))
    assert 0.99 * sent < recorded.events <= sent


def test_settings_are_compared_by_the_alerts_that_they_would_have_given(recorded: Run) -> None:
    stricter = Settings(detection=DetectionSettings(surprise=12.0))
    found = compare(recorded, {"as shipped": Settings(), "stricter": stricter}).rows_by_key("settings", named=True)
    (shipped,), (strict,) = found["as shipped"], found["stricter"]
    assert shipped["alerts"] == len(recorded.alerts)
    assert strict["alerts"] < shipped["alerts"]
    assert strict["recall"] <= shipped["recall"]


def test_windows_of_another_length_are_not_judged_again(recorded: Run) -> None:
    with pytest.raises(ValueError, match=r"`window.length_ms` must be that of the recorded windows"):
        rescore(recorded.table, Settings(window=WindowSettings(length_ms=120_000)))


def test_events_of_a_window_are_those_that_it_counts(recorded: Run) -> None:
    end_ms = START_MS + 7 * LENGTH_MS
    events = events_of(DEMO, Settings(), from_ms=end_ms - LENGTH_MS, until_ms=end_ms)
    counted = recorded.table.filter(window_end_ms=end_ms)["count"].sum()
    assert len(events.filter(~pl.col("late"))) == counted > 0
    assert events["host"].n_unique() == 8


def test_alerts_are_tabled_with_what_a_person_reads_first(recorded: Run) -> None:
    table = alert_table(recorded.transitions)
    assert len(table) == len(recorded.transitions)
    assert set(table["status"]) == {"firing", "resolved"}
    assert table["summary"][0].startswith("search /")


def test_same_seed_gives_the_same_alerts() -> None:
    plan = Plan(seed=4, start_ms=START_MS, duration_ms=900_000, rate_per_s=60.0, scenario="demo")
    first, second = run(plan, Settings()), run(plan, Settings())
    assert first.alerts == second.alerts != []
    assert first.table.equals(second.table, null_equal=True)
    assert Verdict.FOUND in {outcome.verdict for outcome in first.judge(first.alerts).outcomes}


def test_page_is_what_opens_while_nothing_else_of_the_service_is_open() -> None:
    told = [
        alert("a", 10, 100),
        alert("a", 20, 400, "/x"),
        alert("b", 30, 50),
        alert("a", 300, 500, "/y"),
        alert("a", 600, None),
        alert("a", 9000, 9001, "/x"),
    ]
    assert [(page[0].service, len(page)) for page in pages_of(told)] == [("a", 3), ("b", 1), ("a", 2)]
    assert alerts_of([]) == []


def test_recordings_of_a_seed_have_surges_and_lasting_shifts() -> None:
    planned = plans(9, duration_ms=7_200_000, incidents_per_hour=12.0, rate_per_s=10.0)
    assert set(planned) == {"random", "surges", "deployments"}
    surges = list(planned["surges"].incidents(planned["surges"].world()))
    assert len(surges) >= 4
    assert not any(surge.page for surge in surges)
    shifts = list(planned["deployments"].incidents(planned["deployments"].world()))
    assert isinstance(planned["deployments"], Deployments)
    assert {shift.end_ms for shift in shifts} == {START_MS + 7_200_000}
    assert len({shift.services for shift in shifts}) == len(shifts) >= 3

"""What others would have said: a fixed threshold, and Grafana's rules, compared with a real Prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from evaluation.simulated_rivals import Grid, Thresholds, bands, grafana_alerts, grid_of, threshold_alerts
from evaluation.window_table import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MINUTE_MS = 60_000

# A range of Prometheus 2 includes its left end and one of Prometheus 3 does not: a second less is the same in both.
LONG_TERM_RULES = {
    "low_lt": "avg_over_time(level[3599s] offset 23h30m) - stddev_over_time(level[3599s] offset 23h30m) * 2",
    "high_lt": "avg_over_time(level[3599s] offset 23h30m) + stddev_over_time(level[3599s] offset 23h30m) * 2",
}
RULES = {
    "average": "avg_over_time(level[3599s])",
    "filtered": "stddev_over_time(level[3599s]) > average * 0.5",
    "short_term": "avg_over_time(filtered[93599s])",
    "low": 'clamp_min(min(label_replace(average - short_term * 2, "by", "s", "", "") '
    'or label_replace(average * 0.5, "by", "m", "", "") or last_over_time(low_lt[599s])), 0)',
    "high": 'max(label_replace(average + short_term * 2, "by", "s", "", "") '
    'or label_replace(average * 1.5, "by", "m", "", "") or last_over_time(high_lt[599s]))',
}


def grid(latency: NDArray[np.float64]) -> Grid:
    rows = len(latency)
    value = np.stack((latency, np.zeros(rows), np.full(rows, 50.0)))[:, :, None]
    return Grid(np.arange(1, rows + 1) * MINUTE_MS, ["shop"], ["/"], value, np.zeros((rows, 1)))


def test_threshold_fires_after_enough_windows_and_is_held_through_a_short_calm() -> None:
    latency = np.full(40, 10.0)
    latency[[5, 10, 11, 12, 14, 15, 30, 31]] = 99.0
    thresholds = Thresholds(50.0, 0.5, 1.0, hold_slides=2)
    told = threshold_alerts(grid(latency), thresholds, quiet_ms=5 * MINUTE_MS)
    assert [alert.fired_ms // MINUTE_MS for alert in told] == [12, 32]
    assert told[0].resolved_ms == 21 * MINUTE_MS
    assert {(alert.signal, alert.service) for alert in told} == {("latency", "shop")}


def test_grafana_rules_fire_when_a_level_is_outside_its_bands_for_five_minutes() -> None:
    latency = np.full(200, 100.0) + np.sin(np.arange(200))
    latency[100:120] = 400.0
    latency[150:155] = 400.0
    told = grafana_alerts(grid(latency))
    assert [alert.fired_ms // MINUTE_MS for alert in told] == [106]
    assert grafana_alerts(grid(latency), for_minutes=0)[0].fired_ms == 101 * MINUTE_MS


def test_windows_of_series_that_come_and_go_are_laid_out_on_one_grid() -> None:
    rows = [
        {"service": "a", "endpoint": "/", "window_end_ms": 60_000, "count": 6, "errors": 3, "p99_ms": 5.0},
        {"service": "a", "endpoint": "/", "window_end_ms": 80_000, "count": 0, "errors": 0, "p99_ms": None},
        {"service": "b", "endpoint": "/", "window_end_ms": 70_000, "count": 60, "errors": 0, "p99_ms": 7.0},
    ]
    derived = [
        row | {"window_start_ms": row["window_end_ms"] - 60_000, "rate_per_s": row["count"] / 60, "error_ratio": 0.5}
        for row in rows
    ]
    laid = grid_of(pl.DataFrame(derived, schema_overrides={n: t for n, t in SCHEMA.items() if n in derived[0]}))
    assert laid.service == ["a", "b"]
    assert laid.end_ms.tolist() == [60_000, 70_000, 80_000]
    np.testing.assert_array_equal(laid.value[0], [[5.0, np.nan], [np.nan, 7.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(laid.value[2], [[0.1, np.nan], [np.nan, 1.0], [0.0, np.nan]])
    np.testing.assert_array_equal(laid.errors_per_s, [[0.05, np.nan], [np.nan, 0.0], [0.0, np.nan]])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_bands_are_those_that_prometheus_computes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    level = np.round(100 * rng.lognormal(0, 0.2, 1_700), 3)
    level[300:340] *= 6
    level[rng.random(1_700) < 0.02] = np.nan
    lower, upper = bands(level[:, None], np.arange(1_700) * MINUTE_MS)
    looks = [5, 59, 290, 320, 345, 1_000, 1_425, 1_500, 1_699]
    groups = [
        {"name": every, "interval": every, "rules": [{"record": name, "expr": text} for name, text in rules.items()]}
        for every, rules in (("5m", LONG_TERM_RULES), ("1m", RULES))
    ]
    expected = [
        {
            "expr": f"count(abs({name} - {values[at, 0]:.12g}) < 1e-6)",
            "eval_time": f"{at}m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for at in looks
        for name, values in (("low", lower), ("high", upper))
    ]
    series = {"series": "level", "values": " ".join("_" if np.isnan(value) else f"{value}" for value in level)}
    (tmp_path / "rules.json").write_text(json.dumps({"groups": groups}))
    case = {"interval": "1m", "input_series": [series], "promql_expr_test": expected}
    test = {"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "test.json").write_text(json.dumps(test))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

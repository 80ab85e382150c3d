"""The dashboards in `deploy/grafana`: they are what makes them, and each of their queries finds something."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from deploy.grafana.__main__ import FOLDER, documents
from operators.kernels.episodes import EpisodeConfig
from tests.deploy.compose import FLOWS
from tests.deploy.monitoring import DEPLOY, NEEDS_PROMETHEUS, Monitoring, deployed_alertmanager
from tests.flow_process import FlowProcess, settings_for
from tests.live_shop import CALM_PANES, EVENTS_IN_PANE, ILL_PANES, SLIDE_MS, SMALL_WINDOWS, Shop
from tests.real_alertmanager import NEEDS_ALERTMANAGER, Alertmanager, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics

BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
VALUES = {
    "$__interval_ms": "5000",
    "$__interval": "5s",
    "$__rate_interval": "1m",
    "$__range": "10m",
    "$service": "checkout",
    "$endpoint": ".*",
    "$job": "tailmark-.*",
    "${datasource}": "",
}


def test_committed_dashboards_are_those_that_the_program_makes() -> None:
    committed = {path.relative_to(FOLDER).as_posix(): path.read_text() for path in FOLDER.rglob("*.json")}
    assert committed == documents(), "run `python -m deploy.grafana`"


def test_links_of_alerts_and_rules_lead_to_dashboards_that_exist() -> None:
    uids = {json.loads(path.read_text())["uid"] for path in FOLDER.rglob("*.json")}
    assert len(uids) == len(list(FOLDER.rglob("*.json")))
    assert all(len(uid) <= 40 for uid in uids), "Grafana takes no longer ones"
    policy = EpisodeConfig()
    texts = [policy.dashboard_url, policy.runbook_url.replace("{alertname}", "LatencyAnomaly")]
    texts += [path.read_text() for path in (DEPLOY / "prometheus" / "rules").glob("*.yml")]
    linked = {uid for text in texts for uid in re.findall(r"http://localhost:3000/d/([\w-]+)", text)}
    assert {"tailmark-service", "tailmark-pipeline", "tailmark-alerts"} <= linked
    assert linked <= uids


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def test_every_panel_says_what_it_shows_and_asks_the_chosen_prometheus() -> None:
    for board in BOARDS.values():
        graphs = [panel for panel in panels(board) if panel["type"] != "row"]
        assert len(graphs) > 8
        assert len({panel["id"] for panel in panels(board)}) == len(list(panels(board)))
        for panel in graphs:
            assert panel["title"]
            assert panel["description"].endswith((".", "?")), panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]


def queries(board: dict[str, Any]) -> dict[str, str]:
    """Collect all queries of a dashboard, by what they are for."""
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels(board)
        for target in panel.get("targets", [])
    }
    found |= {f"annotation {one['name']}": one["expr"] for one in board.get("annotations", {}).get("list", [])}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            found[f"variable {variable['name']}"] = f"count by ({label}) ({selector})"
    return found


def filled(expr: str) -> str:
    for name, value in VALUES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def wait_until_counted(monitoring: Monitoring, events: int) -> None:
    """Wait until Prometheus has seen all flows count so many events."""
    counted = f'tailmark_events_total{{outcome="accepted"}} >= {events}'
    until(lambda: len(monitoring.query(counted)) == len(FLOWS), lambda: f"{monitoring.query('tailmark_events_total')}")


@pytest.fixture
def watched(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> Iterator[tuple[Monitoring, Alertmanager, str]]:
    """A pipeline in which a service is slow, with everything that compose has around it."""
    alertmanager = deployed_alertmanager(tmp_path / "alertmanager").start()
    told = {**SMALL_WINDOWS, "ALERTMANAGER__URLS": alertmanager.url, "ALERTMANAGER__RESEND_MS": "2000"}
    envs = {name: settings_for(kafka, topics, **told) for name in FLOWS}
    ports = {name: env["TAILMARK_PROMETHEUS__PORT"] for name, env in envs.items()}
    monitoring = Monitoring(
        tmp_path / "prometheus",
        {
            "anomaly:8000": f"127.0.0.1:{ports['anomaly']}",
            "bridge:8001": f"127.0.0.1:{ports['bridge']}",
            "archive:8002": f"127.0.0.1:{ports['archive']}",
            "alertmanager:9093": f"127.0.0.1:{alertmanager.port}",
        },
    )
    envs["archive"]["TAILMARK_ARCHIVE__PATH"] = str(tmp_path / "dataset")
    envs["bridge"]["TAILMARK_PROMETHEUS__REMOTE_WRITE_URL"] = monitoring.write_url
    flows = {name: FlowProcess(env, tmp_path / name, f"flows.{name}") for name, env in envs.items()}
    try:
        monitoring.start()
        for flow in flows.values():
            flow.start()
        for flow in flows.values():
            flow.serving()
        wait_until_counted(monitoring, 0)
        # In portions, so that Prometheus sees counters rise; up to now, as the bridge writes at the time of events.
        shop = Shop(kafka, topics, age_ms=ILL_PANES.stop * SLIDE_MS)
        for pane in (10, CALM_PANES // 2, ILL_PANES.stop - 1, ILL_PANES.stop):
            shop.open_until(pane)
            wait_until_counted(monitoring, pane * EVENTS_IN_PANE)
        until(lambda: bool(monitoring.query('tailmark_alert_firing{service="checkout"}')), flows["anomaly"].output)
        yield monitoring, alertmanager, f"http://127.0.0.1:{ports['anomaly']}/metrics"
    finally:
        for flow in flows.values():
            flow.kill()
        monitoring.stop()
        alertmanager.stop()


@NEEDS_PROMETHEUS
@NEEDS_ALERTMANAGER
def test_every_query_finds_something_in_a_pipeline_in_which_a_service_is_slow(
    watched: tuple[Monitoring, Alertmanager, str],
) -> None:
    monitoring, alertmanager, page = watched
    asked = {f"{uid}: {name}": filled(expr) for uid, board in BOARDS.items() for name, expr in queries(board).items()}
    assert len(asked) > 40
    silent: dict[str, str] = dict(asked)

    def all_answered() -> bool:
        for name, expr in list(silent.items()):
            if monitoring.query(expr):
                del silent[name]
        return not silent

    until(all_answered, lambda: f"these find nothing: {silent}")
    broken = {
        rule["name"]: rule.get("lastError")
        for group in monitoring.get("rules")["groups"]
        for rule in group["rules"]
        if rule["health"] != "ok"
    }
    assert broken == {}
    until(
        lambda: {"TailmarkWatchdog", "LatencyAnomaly"} <= {a["labels"]["alertname"] for a in alertmanager.alerts()},
        lambda: f"Alertmanager knows {alertmanager.alerts()}",
    )
    with urllib.request.urlopen(page, timeout=10) as answer:
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=answer.read(), capture_output=True, timeout=30, check=False
        )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")

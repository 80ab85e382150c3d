"""The rules and routes in `deploy/`, by the programs that will read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from operators.kernels.episodes import EpisodeConfig
from operators.kernels.episodes.wording import ALERTNAMES
from tests.deploy.monitoring import deployed_alertmanager
from tests.real_alertmanager import NEEDS_ALERTMANAGER, Alertmanager, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTMANAGER = ROOT / "deploy" / "alertmanager"
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = sorted((Path(__file__).parent / "rules").glob("*.test.yml"))
NEEDS_PROMTOOL = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")
NEEDS_AMTOOL = pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool on this machine")


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in read(path)["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


# Prometheus


@NEEDS_PROMTOOL
def test_promtool_finds_nothing_wrong_with_the_configuration() -> None:
    result = run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    assert result.returncode == 0, result.stdout + result.stderr


@NEEDS_PROMTOOL
@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.name)
def test_rules_give_what_their_cases_expect(cases: Path) -> None:
    result = run("promtool", "test", "rules", cases)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires, rests = set(), set()
    for path in CASES:
        for case in read(path)["tests"]:
            for expected in case.get("promql_expr_test", []):
                name = re.match(r'ALERTS\{alertname="(\w+)"', expected["expr"])
                if name is not None:
                    (fires if expected.get("exp_samples") else rests).add(name[1])
    assert fires == set(alerts())
    assert rests == set(alerts()) - {"TailmarkWatchdog"}


def test_every_recording_rule_is_named_level_metric_operations() -> None:
    names = [rule["record"] for rule in rules() if "record" in rule]
    assert names
    assert [name for name in names if not re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", name)] == []
    assert len(set(names)) == len(names)


def test_every_alert_says_what_it_is_and_leads_to_its_runbook() -> None:
    for name, rule in alerts().items():
        assert re.fullmatch(r"([A-Z][a-z0-9]+)+", name)
        assert rule["labels"]["severity"] in {"critical", "warning", "none"}
        annotations = rule["annotations"]
        assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
        prefix, _, page = annotations["runbook_url"].partition("/d/runbook-")
        assert prefix == "http://localhost:3000"
        assert page == ("LatencyAnomaly" if name == "LatencyAnomalyWithoutStream" else name)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    named = set(ALERTNAMES) | (set(alerts()) - {"LatencyAnomalyWithoutStream"})
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == named
    assert EpisodeConfig().runbook_url == "http://localhost:3000/d/runbook-{alertname}"


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_runbook_says_what_it_means_what_to_look_at_and_what_to_do(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [page.stem, "Look at", "Do", "When it is nothing"]


# Alertmanager


@NEEDS_AMTOOL
@pytest.mark.parametrize("name", ["alertmanager.yml", "alertmanager.example.yml"])
def test_amtool_finds_nothing_wrong_with_the_configuration(name: str) -> None:
    result = run("amtool", "check-config", ALERTMANAGER / name)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 templates" in result.stdout


def test_example_routes_and_inhibits_as_compose_does() -> None:
    used, example = (read(ALERTMANAGER / name) for name in ("alertmanager.yml", "alertmanager.example.yml"))
    for key in ("route", "inhibit_rules", "templates"):
        assert used[key] == example[key]
    assert [receiver["name"] for receiver in used["receivers"]] == [r["name"] for r in example["receivers"]]


@NEEDS_AMTOOL
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=LatencyAnomaly service=cart endpoint=/ severity=critical", "pager"),
        ("alertname=LatencyAnomaly service=cart endpoint=/ severity=warning", "chat"),
        ("alertname=ServiceSilent service=cart severity=critical", "pager"),
        ("alertname=TailmarkDown severity=critical", "pager"),
        ("alertname=TailmarkLagging severity=warning", "chat"),
        ("alertname=TailmarkWatchdog severity=none", "dead-mans-switch"),
        ("alertname=LatencyAnomalyWithoutStream severity=warning audience=nobody", "nobody"),
    ],
)
def test_alert_goes_to_whom_it_concerns(labels: str, receiver: str) -> None:
    file = ALERTMANAGER / "alertmanager.yml"
    assert (
        run("amtool", "config", "routes", "test", f"--config.file={file}", *labels.split()).stdout.strip() == receiver
    )


@NEEDS_AMTOOL
@pytest.mark.parametrize(
    ("status", "title", "parts"),
    [
        (
            "firing",
            "FIRING 1 critical: checkout /pay LatencyAnomaly",
            [
                "checkout /pay is slow",
                "It is flapping",
                "Since 2026-11-23 10:00:00 UTC",
                "Runbook: http://r",
                "Dashboard: ",
            ],
        ),
        (
            "resolved",
            "RESOLVED critical: checkout /pay LatencyAnomaly",
            ["Over: checkout /pay is slow", "Since 2026-11-23 10:00:00 UTC until 10:05:00"],
        ),
    ],
)
def test_template_says_what_a_person_needs(status: str, title: str, parts: list[str], tmp_path: Path) -> None:
    labels = {"alertname": "LatencyAnomaly", "service": "checkout", "endpoint": "/pay", "severity": "critical"}
    annotations = {
        "summary": "checkout /pay is slow", "description": "It was slow.", "flapping": "true",
        "runbook_url": "http://r", "dashboard_url": "http://d",
    }  # fmt: skip
    alert = {
        "status": status, "labels": labels, "annotations": annotations,
        "startsAt": "2026-11-23T10:00:00Z", "endsAt": "2026-11-23T10:05:00Z",
    }  # fmt: skip
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"status": status, "commonLabels": labels, "alerts": [alert]}))
    given = f"--template.glob={ALERTMANAGER / 'templates' / '*.tmpl'}", f"--template.data={data}"

    def rendered(name: str) -> str:
        result = run("amtool", "template", "render", *given, f'--template.text={{{{ template "{name}" . }}}}')
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    assert rendered("tailmark.title") == title
    text = rendered("tailmark.text")
    assert [part for part in parts if part not in text] == []


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    replica = deployed_alertmanager(tmp_path / "alertmanager").start()
    yield replica
    replica.stop()


@NEEDS_ALERTMANAGER
def test_alert_of_a_service_inhibits_those_of_its_endpoints_and_no_others(alertmanager: Alertmanager) -> None:
    told = [
        {"alertname": "ServiceSilent", "service": "cart", "severity": "critical"},
        {"alertname": "TrafficAnomaly", "service": "cart", "endpoint": "/a", "severity": "warning"},
        {"alertname": "LatencyAnomaly", "service": "shop", "endpoint": "/a", "severity": "warning"},
        {"alertname": "LatencyAnomaly", "service": "shop", "endpoint": "/b", "severity": "critical"},
        {"alertname": "LatencyAnomaly", "service": "shop", "endpoint": "/b", "severity": "warning"},
        {"alertname": "TailmarkDown", "job": "tailmark-anomaly", "severity": "critical"},
        {"alertname": "TailmarkNoEvents", "job": "tailmark-anomaly", "severity": "critical"},
        {"alertname": "TailmarkNoEvents", "job": "tailmark-bridge", "severity": "critical"},
    ]
    alertmanager.post([{"labels": labels, "annotations": {"summary": "x"}} for labels in told])

    def suppressed() -> list[dict[str, str]]:
        known = alertmanager.alerts()
        return [alert["labels"] for alert in known if alert["status"]["state"] == "suppressed"]

    expected = [told[1], told[4], told[6]]
    until(
        lambda: len(alertmanager.alerts()) == len(told) and sorted(suppressed(), key=str) == sorted(expected, key=str),
        lambda: f"suppressed are {suppressed()}",
    )
    assert sorted(suppressed(), key=str) == sorted(expected, key=str)

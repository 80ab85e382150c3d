"""`tailmark status` on a real Kafka, beside a real flow."""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from rich.console import Console

from cli.status.pages import ProcessFacts
from cli.status.report import Report
from cli.status.tables import ago, tables
from cli.status.topics import KafkaFacts
from tests.cli.supervised import FIRST_SNAPSHOT, Supervised, pauses
from tests.dirty_log import event
from tests.flow_process import free_ports, settings_for
from tests.kafka_log import NewRecord, create_topic, produce

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Command
    from tests.conftest import KafkaCluster, Topics

EVENTS = 300


@pytest.fixture
def status(tailmark: Command) -> Callable[..., tuple[int, str]]:
    """A function that runs `tailmark status`, and gives its exit code and what it said on stdout alone."""

    def run(env: dict[str, str], *arguments: str) -> tuple[int, str]:
        code, out, err = tailmark(env, "status", *arguments)
        assert err == ""
        return code, out

    return run


def publish_now(kafka: KafkaCluster, topics: Topics) -> None:
    """Write events of the last half minute to all partitions."""
    now_ms = int(time.time() * 1000)
    values = [event(now_ms - 100 * (EVENTS - number), f"s{number % 3}") for number in range(EVENTS)]
    records = [NewRecord(value, partition=number % 4) for number, value in enumerate(values)]
    produce(kafka.client_options, topics.events, records)


def transition(status: str, fingerprint: str, starts_at_ms: int) -> NewRecord:
    labels = {"alertname": "LatencyAnomaly", "service": "shop", "endpoint": "/[pay]", "severity": "critical"}
    fields = {"schema": "alert/1", "fingerprint": fingerprint, "status": status, "labels": labels}
    numbers = {"starts_at_ms": starts_at_ms, "signal": "latency", "value": 812.5, "expected": 100.0, "score": None}
    return NewRecord(json.dumps(fields | numbers).encode(), fingerprint.encode())


def test_flow_that_runs_and_has_caught_up_is_well(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, status: Callable[..., tuple[int, str]]
) -> None:
    env = settings_for(kafka, topics)
    publish_now(kafka, topics)
    with Supervised(env, tmp_path / "recovery", ("--processes", "2")) as cluster:
        cluster.until_said(FIRST_SNAPSHOT)
        report: dict[str, Any] = {}
        for _ in pauses():
            code, text = status(env, "--output", "json")
            report = json.loads(text)
            if code == 0 and report["lag_events"] == {"anomaly": 0}:
                break
        assert report["problems"] == []
        assert [(found["flow"], found["process"]) for found in report["processes"]] == [("anomaly", 0), ("anomaly", 1)]
        assert sum(found["events"]["accepted"] for found in report["processes"]) == EVENTS
        assert sum(found["series"] for found in report["processes"]) == 3
        assert sum(found["warming"] or 0 for found in report["processes"]) == 3, "half a minute is no history"
        assert {found["topic"]: found["partitions"] for found in report["topics"]}[topics.windows] == 4
        code, text = status(env)
        assert code == 0
        assert text.rstrip().endswith("all is well")
        assert cluster.stop() == 0
    publish_now(kafka, topics)
    code, text = status(env)
    assert code == 1
    assert f"flow anomaly does not answer at http://127.0.0.1:{env['TAILMARK_PROMETHEUS__PORT']}" in text
    assert f"{EVENTS} records wait for it" in text


def test_open_alerts_are_shown_and_resolved_ones_are_not(
    kafka: KafkaCluster, topics: Topics, status: Callable[..., tuple[int, str]]
) -> None:
    now_ms = int(time.time() * 1000)
    create_topic(kafka.client_options, topics.alerts_state, partitions=4, cleanup_policy="compact")
    records = [transition("firing", name, now_ms - 90_000 - number) for number, name in enumerate(("old", "open"))]
    records += [transition("resolved", "old", now_ms), NewRecord(None, b"old"), transition("firing", "new", now_ms)]
    records += [NewRecord(b"hello", b"a colleague's"), NewRecord(b"", b"nothing")]
    produce(kafka.client_options, topics.alerts_state, records)
    env = settings_for(kafka, topics)
    report = json.loads(status(env, "--output", "json")[1])
    assert [alert["fingerprint"] for alert in report["alerts"]] == ["open", "new"]
    table = status(env)[1]
    assert table.count("LatencyAnomaly") == 2
    assert "/[pay]" in table
    assert "812.5" in table


def test_missing_topic_is_a_problem(
    kafka: KafkaCluster, topics: Topics, status: Callable[..., tuple[int, str]]
) -> None:
    env = settings_for(kafka, topics) | {"TAILMARK_KAFKA__TOPICS__EVENTS": f"{topics.prefix}.nowhere"}
    code, text = status(env)
    assert code == 1
    assert f"topic {topics.prefix}.nowhere does not exist" in text


def test_kafka_that_does_not_answer_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, status: Callable[..., tuple[int, str]]
) -> None:
    monkeypatch.setattr("cli.status.topics.ANSWER_TIMEOUT_S", 1.0)
    kafka, page = free_ports(2)
    env = {
        "TAILMARK_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka}",
        "TAILMARK_PROMETHEUS__PORT": str(page),
    }
    code, text = status(env, "--output", "json")
    assert code == 1
    kafka_problem, flow_problem = json.loads(text)["problems"]
    assert kafka_problem.startswith(f"kafka at 127.0.0.1:{kafka} did not answer within 1 s: Connect to ")
    assert "\n" not in kafka_problem
    assert flow_problem == f"flow anomaly does not answer at http://127.0.0.1:{page}"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0.0 s ago"), (59.0, "59.0 s ago"), (90.0, "1.5 min ago"), (-7200.0, "in 2.0 h"), (864_000.0, "10.0 d ago")],
)
def test_time_is_told_in_the_unit_that_suits_it(seconds: float, words: str) -> None:
    assert ago(seconds) == words


def test_a_busy_process_fits_in_eighty_columns() -> None:
    events = {"accepted": 12_345_678, "late": 12_345, "dead_letter": 12_345, "heartbeat": 9}
    busy = ProcessFacts(
        "anomaly", 3, "", ready=False, restored=True, epoch_age_s=59.9, epoch_limit_s=60.0, events=events,
        series=100_000, warming=99_999, lag_events=1_234_567, lag_s=3_000.0, watermark_s=1e9, firing=0,
    )  # fmt: skip
    console = Console(width=80, file=io.StringIO(), highlight=False)
    console.print(tables(Report([busy], KafkaFacts(lag_events={"anomaly": 1_234_567})), now_s=1e9 + 3_000.0))
    said = cast("io.StringIO", console.file).getvalue()
    assert "…" not in said
    assert "not ready" in said
    assert said.count("anomaly 3") == 2
    assert "12,345,678" in said
    assert max(len(line) for line in said.splitlines()) <= 80

"""The bridge's page: it shows what the log says, promtool finds nothing wrong, and a real Prometheus reads it."""

from __future__ import annotations

import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.dirty_log import dirty_log
from tests.flow_process import FlowProcess, settings_for
from tests.integration.bridge_log import publish
from tests.integration.bridge_page import codes_on, eventually, page_of
from tests.integration.prometheus_server import PrometheusServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics
    from tests.tally_oracle import TallyOracle

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def oracle(kafka: KafkaCluster, topics: Topics) -> TallyOracle:
    """What a dirty log in the input topic comes to."""
    return publish(kafka, topics, dirty_log(21, partitions=4, records=3000, span_ms=300_000))


@pytest.fixture
def flow(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> Iterator[FlowProcess]:
    """A bridge that goes on after the log; idle partitions let it close the last pane."""
    env = settings_for(kafka, topics, WINDOW__IDLE_AFTER_MS="500")
    running = FlowProcess(env, tmp_path / "recovery", "flows.bridge").start().serving()
    yield running
    running.signal(signal.SIGTERM)
    codes, said = running.wait()
    assert codes == [0], said


def test_page_shows_what_the_log_says_in_both_formats_and_promtool_finds_nothing_wrong(
    flow: FlowProcess, oracle: TallyOracle
) -> None:
    env = dict(flow.env)
    eventually(lambda: codes_on(page_of(env)) == dict(oracle.codes()))
    classic, sums = oracle.classic(), oracle.sums_us()
    text, openmetrics = page_of(env), page_of(env, OPENMETRICS)
    assert all(sample.timestamp is None for family in parse_text(text) for sample in family.samples)
    for page, parse in ((text, parse_text), (openmetrics, parse_openmetrics)):
        buckets: dict[tuple[str, str], list[float]] = {}
        for sample in [one for family in parse(page) for one in family.samples]:
            series = (sample.labels.get("service", ""), sample.labels.get("endpoint", ""))
            if sample.name == "telemetry_request_duration_seconds_bucket":
                buckets.setdefault(series, []).append(sample.value)
            elif sample.name == "telemetry_request_duration_seconds_sum":
                assert sample.value == pytest.approx(sums[series] / 1e6)
            elif sample.name == "telemetry_request_duration_seconds_count":
                assert sample.value == classic[series][-1]
        assert buckets == classic
    accepted = 'tailmark_events_total{flow="bridge",outcome="accepted"}'
    assert f"{accepted} {len(oracle.requests):.1f}" in text
    if shutil.which("promtool") is None:
        pytest.skip("there is no `promtool` on this machine")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_prometheus_that_scrapes_the_page_has_every_accepted_event(
    flow: FlowProcess, oracle: TallyOracle, tmp_path: Path
) -> None:
    server = PrometheusServer(tmp_path / "prometheus", scrape=(int(flow.env["TAILMARK_PROMETHEUS__PORT"]),)).start()
    try:
        eventually(
            lambda: list(server.query("sum(telemetry_requests_total)").values()) == [float(len(oracle.requests))]
        )
        slow = server.query(
            "sum(telemetry_request_duration_seconds_count - on (service, endpoint) "
            'telemetry_request_duration_seconds_bucket{le="1.0"})'
        )
        assert list(slow.values()) == [sum(one.latency_us > 1e6 for one in oracle.requests)]
    finally:
        server.stop()


def test_page_goes_on_where_it_was_after_a_stop(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, oracle: TallyOracle
) -> None:
    env = settings_for(kafka, topics, WINDOW__IDLE_AFTER_MS="500")
    flow = FlowProcess(env, tmp_path / "recovery", "flows.bridge")
    flow.start().serving()
    eventually(lambda: codes_on(page_of(env)) == dict(oracle.codes()))
    flow.signal(signal.SIGTERM)
    codes, said = flow.wait()
    assert codes == [0], said
    flow.start().serving()
    eventually(lambda: codes_on(page_of(env)) == dict(oracle.codes()))  # although nothing comes
    flow.signal(signal.SIGTERM)
    codes, said = flow.wait()
    assert codes == [0], said
    later = publish(kafka, topics, dirty_log(22, partitions=4, records=500, span_ms=60_000), oracle, 400_000)
    flow.start().serving()
    try:
        eventually(lambda: codes_on(page_of(env)) == dict(later.codes()))
    finally:
        flow.signal(signal.SIGTERM)
        codes, said = flow.wait()
    assert codes == [0], said

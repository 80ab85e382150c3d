"""Remote write of the bridge against real servers: the stored samples are those that follow from the log."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.dirty_log import dirty_log
from tests.flow_process import FlowProcess, settings_for
from tests.integration.bridge_log import TRACED_EVERY, publish, traced
from tests.integration.prometheus_server import PrometheusServer
from tests.tally_oracle import BOUNDS_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics
    from tests.tally_oracle import TallyOracle

NEWEST = os.environ.get("PROMETHEUS3", "prometheus3")
"""A Prometheus 3, for remote write 2.0: its path, or its name on the path."""

PANE_MS = 10_000
SPAN_MS = 300_000
EVERYTHING = '{__name__=~"telemetry_.+"}'


@pytest.fixture
def oracle(kafka: KafkaCluster, topics: Topics) -> TallyOracle:
    """What a dirty log with traces in the input topic comes to."""
    return publish(kafka, topics, traced(dirty_log(31, partitions=4, records=3000, span_ms=SPAN_MS)))


@pytest.fixture(params=["prometheus", NEWEST], ids=["of-this-machine", "newest"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrometheusServer]:
    """A receiver: that of the machine takes 1.0 alone, a Prometheus 3 takes 2.0."""
    running = PrometheusServer(tmp_path / "prometheus", binary=request.param, out_of_order="100y")
    running.start()
    yield running
    running.stop()


def end_of(oracle: TallyOracle) -> int:
    """The end of the last pane."""
    return (max(oracle.tops.values()) // PANE_MS + 1) * PANE_MS


def env_for(kafka: KafkaCluster, topics: Topics, server: PrometheusServer, **more: str) -> dict[str, str]:
    return settings_for(kafka, topics, PROMETHEUS__REMOTE_WRITE_URL=server.write_url, **more)


def stored(server: PrometheusServer, oracle: TallyOracle, selector: str = EVERYTHING) -> dict[str, list[Any]]:
    """Every sample of the bridge that the server has."""
    return server.samples(selector, end_of(oracle) + PANE_MS, SPAN_MS * 3)


def assert_equals_oracle(server: PrometheusServer, oracle: TallyOracle) -> None:
    for at_ms in range(end_of(oracle) - SPAN_MS // 2, end_of(oracle) + 1, 5 * PANE_MS):
        counted = {
            (labels["service"], labels.get("endpoint", ""), int(labels["code"])): value
            for labels, value in (
                (dict(key), one) for key, one in server.query("telemetry_requests_total", at_ms).items()
            )
        }
        assert counted == oracle.codes(at_ms)
    at_ms = end_of(oracle)
    buckets: dict[tuple[str, str], dict[float, float]] = {}
    for key, value in server.query("telemetry_request_duration_seconds_bucket", at_ms).items():
        labels = dict(key)
        buckets.setdefault((labels["service"], labels.get("endpoint", "")), {})[float(labels["le"])] = value
    assert {series: [found[bound] for bound in [*BOUNDS_S, float("inf")]] for series, found in buckets.items()} == (
        oracle.classic()
    )
    for key, value in server.query("telemetry_request_duration_seconds", at_ms).items():
        series = (dict(key)["service"], dict(key).get("endpoint", ""))
        assert float(value["count"]) == oracle.classic()[series][-1]
        assert float(value["sum"]) == pytest.approx(oracle.sums_us()[series] / 1e6)
        assert sum(float(bucket[3]) for bucket in value["buckets"]) == oracle.classic()[series][-1]


def test_receiver_has_exactly_the_accepted_events_of_the_log(
    kafka: KafkaCluster, topics: Topics, server: PrometheusServer, oracle: TallyOracle
) -> None:
    codes, said = FlowProcess(env_for(kafka, topics, server, KAFKA__STOP_AT_END="true"), flow="flows.bridge").run()
    assert codes == [0], said
    assert_equals_oracle(server, oracle)
    at_ms = end_of(oracle)
    assert list(server.query("sum(increase(telemetry_requests_total[1h]))", at_ms).values()) != []
    exemplars = server.get(
        "query_exemplars",
        query="telemetry_request_duration_seconds_bucket",
        start=str((at_ms - SPAN_MS * 2) / 1000),
        end=str(at_ms / 1000),
    )
    found = {one["labels"]["trace_id"] for series in exemplars for one in series["exemplars"]}
    assert found <= {str(one.trace_id) for one in oracle.requests}
    assert len(found) > SPAN_MS / PANE_MS / TRACED_EVERY
    assert "error" not in said.lower()

"""Remote write of the bridge against real servers: the stored samples are those that follow from the log."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.supervised import FIRST_SNAPSHOT, STARTED, Supervised
from tests.dirty_log import START_MS, Log, dirty_log, event
from tests.flow_process import FlowProcess, settings_for
from tests.integration.bridge_log import TRACED_EVERY, publish, traced
from tests.integration.bridge_page import codes_on, eventually, lag_on, page_of, samples_on
from tests.integration.prometheus_server import PrometheusServer, write_sample
from tests.tally_oracle import BOUNDS_S, TallyOracle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import KafkaCluster, Topics

NEWEST = os.environ.get("PROMETHEUS3", "prometheus3")
"""A Prometheus 3, for remote write 2.0: its path, or its name on the path."""

PANE_MS = 10_000
SPAN_MS = 300_000
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "prometheus.md"
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


def undisturbed(kafka: KafkaCluster, topics: Topics, server: PrometheusServer, tmp_path: Path) -> PrometheusServer:
    """Another receiver of the same kind, written to by a flow that reads the whole log and ends."""
    other = PrometheusServer(tmp_path / "undisturbed", binary=server.binary, out_of_order="100y").start()
    codes, said = FlowProcess(env_for(kafka, topics, other, KAFKA__STOP_AT_END="true"), flow="flows.bridge").run()
    assert codes == [0], said
    return other


def assert_same_samples(server: PrometheusServer, other: PrometheusServer, oracle: TallyOracle) -> None:
    ours, theirs = stored(server, oracle), stored(other, oracle)
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert sum(map(len, ours.values())) > 1000


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


def test_every_query_of_the_guide_has_an_answer(
    kafka: KafkaCluster, topics: Topics, server: PrometheusServer, oracle: TallyOracle
) -> None:
    codes, said = FlowProcess(env_for(kafka, topics, server, KAFKA__STOP_AT_END="true"), flow="flows.bridge").run()
    assert codes == [0], said
    asked = GUIDE.read_text(encoding="utf-8").partition("## Ask")[2].split("```")[1::2]
    queries = [query for block in asked for query in block.strip().split("\n\n")]
    assert len(queries) == 5
    for query in queries:
        assert server.query(query, end_of(oracle)), query


def test_flow_that_is_killed_again_and_again_leaves_the_samples_of_one_that_is_not(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, server: PrometheusServer
) -> None:
    server.stop()
    server.out_of_order = ""
    server.start()
    rng = random.Random(1)
    log, oracle = traced(dirty_log(32, partitions=4, records=3000, span_ms=SPAN_MS)), TallyOracle()
    done = threading.Event()

    def write() -> None:
        for low in range(0, 800, 20):
            publish(kafka, topics, [values[low : low + 20] for values in log], oracle)
            time.sleep(0.3)
        publish(kafka, topics, [values[800:] for values in log], oracle)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    env = env_for(kafka, topics, server)
    kills = 0
    while not done.is_set():
        flow = FlowProcess(env, tmp_path / "recovery", "flows.bridge").start().serving()
        time.sleep(rng.uniform(0.2, 2.5))
        flow.signal(signal.SIGKILL)
        flow.wait()
        kills += 1
    writer.join()
    codes, said = FlowProcess(
        env | {"TAILMARK_KAFKA__STOP_AT_END": "true"}, tmp_path / "recovery", "flows.bridge"
    ).run()
    assert codes == [0], said
    assert kills > 3
    assert "refused" not in said
    other = undisturbed(kafka, topics, server, tmp_path)
    try:
        assert_same_samples(server, other, oracle)
        assert_equals_oracle(server, oracle)
    finally:
        other.stop()


def test_directory_restored_from_an_older_backup_leaves_the_same_samples(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, server: PrometheusServer
) -> None:
    log, oracle = traced(dirty_log(36, partitions=4, records=2000, span_ms=SPAN_MS)), TallyOracle()
    env, recovery = env_for(kafka, topics, server), tmp_path / "recovery"
    flow = FlowProcess(env, recovery, "flows.bridge")
    for part, (low, high) in enumerate([(0, 250), (250, 350)]):
        publish(kafka, topics, [values[low:high] for values in log], oracle)
        flow.start().serving()
        eventually(lambda: lag_on(page_of(env)) == 0)
        flow.signal(signal.SIGTERM)
        assert flow.wait()[0] == [0]
        if part == 0:
            shutil.copytree(recovery, tmp_path / "backup")
    publish(kafka, topics, [values[350:] for values in log], oracle)
    last = FlowProcess(env | {"TAILMARK_KAFKA__STOP_AT_END": "true"}, recovery, "flows.bridge")
    assert last.run()[0] == [0]
    before = stored(server, oracle)
    shutil.rmtree(recovery)
    shutil.copytree(tmp_path / "backup", recovery)
    codes, said = last.run()
    assert codes == [0], said
    assert stored(server, oracle) == before
    assert_equals_oracle(server, oracle)


def test_number_of_processes_may_change_and_the_samples_do_not(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, server: PrometheusServer
) -> None:
    log, oracle = traced(dirty_log(33, partitions=4, records=3000, span_ms=SPAN_MS)), TallyOracle()
    env = env_for(kafka, topics, server)
    for low, high, processes in ((0, 300, 1), (300, 500, 2), (500, None, 1)):
        publish(kafka, topics, [values[low:high] for values in log], oracle)
        last = str(high is None).lower()
        flow = FlowProcess(
            env | {"TAILMARK_KAFKA__STOP_AT_END": last}, tmp_path / "recovery", "flows.bridge", processes=processes
        ).start()
        if high is not None:
            flow.serving()
            time.sleep(2)
            flow.signal(signal.SIGTERM)
        codes, said = flow.wait()
        assert codes == [0] * processes, said
    other = undisturbed(kafka, topics, server, tmp_path)
    try:
        assert_same_samples(server, other, oracle)
    finally:
        other.stop()


def test_receiver_that_is_away_costs_nothing_and_the_flow_can_be_stopped_meanwhile(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, server: PrometheusServer, oracle: TallyOracle
) -> None:
    server.stop()
    env = env_for(kafka, topics, server, WINDOW__IDLE_AFTER_MS="500", PROMETHEUS__REMOTE_WRITE_MAX_PAUSE_MS="200")
    flow = FlowProcess(env, tmp_path / "recovery", "flows.bridge").start().serving()
    eventually(lambda: codes_on(page_of(env)) == dict(oracle.codes()))
    assert samples_on(page_of(env), "tailmark_remote_write_waiting_samples") > 0
    flow.signal(signal.SIGTERM)
    codes, said = flow.wait()
    assert codes == [0], said
    assert "were not delivered" in said
    flow.start().serving()
    server.start()
    try:
        eventually(lambda: samples_on(page_of(env), "tailmark_remote_write_waiting_samples") == 0)
    finally:
        flow.signal(signal.SIGTERM)
        codes, said = flow.wait()
    assert codes == [0], said
    assert_equals_oracle(server, oracle)


def test_supervised_cluster_is_left_alone_while_the_receiver_is_away(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, server: PrometheusServer
) -> None:
    server.stop()
    log, oracle = dirty_log(35, partitions=4, records=2000, span_ms=SPAN_MS), TallyOracle()
    publish(kafka, topics, [values[:250] for values in log], oracle)
    recovery = tmp_path / "recovery"
    env = env_for(kafka, topics, server, WINDOW__IDLE_AFTER_MS="500", PROMETHEUS__REMOTE_WRITE_MAX_PAUSE_MS="200")
    with Supervised(env, recovery, ("--processes", "2", "--stall-after", "4"), "bridge") as cluster:
        cluster.until_said(FIRST_SNAPSHOT)
        eventually(lambda: samples_on(page_of(env), "tailmark_remote_write_retries_total") > 60)
        assert len(cluster.said(STARTED)) == 1
        assert cluster.stop() == 0, cluster.lines
    server.start()
    publish(kafka, topics, [values[250:] for values in log], oracle)
    with Supervised(env | {"TAILMARK_KAFKA__STOP_AT_END": "true"}, recovery, flow="bridge") as cluster:
        assert cluster.wait() == 0, cluster.lines
    accepted = sum(oracle.codes().values())
    assert 0.9 * accepted < sum(server.query("telemetry_requests_total", end_of(oracle)).values()) <= accepted


def test_full_queue_makes_the_flow_read_no_further_until_the_receiver_is_back(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, server: PrometheusServer
) -> None:
    server.stop()
    log, oracle = dirty_log(34, partitions=4, records=1200, span_ms=SPAN_MS), TallyOracle()
    env = env_for(
        kafka,
        topics,
        server,
        WINDOW__IDLE_AFTER_MS="100",
        PROMETHEUS__REMOTE_WRITE_WAITING_SAMPLES="200",
        PROMETHEUS__REMOTE_WRITE_MAX_PAUSE_MS="200",
    )
    flow = FlowProcess(env, tmp_path / "recovery", "flows.bridge").start().serving()
    for low in range(0, 100, 20):
        publish(kafka, topics, [values[low : low + 20] for values in log], oracle)
        time.sleep(0.3)
    eventually(lambda: samples_on(page_of(env), "tailmark_remote_write_waiting_samples") > 200)
    publish(kafka, topics, [values[100:150] for values in log], oracle)
    eventually(lambda: lag_on(page_of(env)) >= 200)
    server.start()
    try:
        publish(kafka, topics, [values[150:] for values in log], oracle)
        eventually(lambda: sum(codes_on(page_of(env)).values()) > 0.9 * len(oracle.requests))
        eventually(lambda: samples_on(page_of(env), "tailmark_remote_write_waiting_samples") == 0)
        accepted = sum(codes_on(page_of(env)).values())
    finally:
        flow.signal(signal.SIGTERM)
        codes, said = flow.wait()
    assert codes == [0], said
    assert list(server.query("sum(telemetry_requests_total)", end_of(oracle)).values()) == [accepted]


def test_series_that_the_receiver_refuses_is_isolated_and_counted(
    kafka: KafkaCluster, topics: Topics, server: PrometheusServer, oracle: TallyOracle
) -> None:
    server.stop()
    server.out_of_order = ""
    server.start()
    bad = {"__name__": "telemetry_requests_total", "code": "200", "endpoint": "/x", "service": "a"}
    write_sample(server, bad, 5.0, end_of(oracle) + 600_000)
    env = env_for(kafka, topics, server, WINDOW__IDLE_AFTER_MS="500")
    flow = FlowProcess(env, flow="flows.bridge").start().serving()
    try:
        eventually(lambda: codes_on(page_of(env)) == dict(oracle.codes()))
        eventually(lambda: samples_on(page_of(env), "tailmark_remote_write_waiting_samples") == 0)
        page = page_of(env)
    finally:
        flow.signal(signal.SIGTERM)
        codes, said = flow.wait()
    assert codes == [0], said
    refused = samples_on(page, 'tailmark_remote_write_samples_total{outcome="out_of_order"}')
    assert 25 < refused < 45
    expected = oracle.codes()
    del expected["a", "/x", 200]
    found = {
        (dict(key)["service"], dict(key).get("endpoint", ""), int(dict(key)["code"])): value
        for key, value in server.query("telemetry_requests_total", end_of(oracle)).items()
    }
    assert found == dict(expected)


def test_series_that_ends_is_marked_stale(kafka: KafkaCluster, topics: Topics, server: PrometheusServer) -> None:
    first = START_MS // PANE_MS * PANE_MS
    events = [(0, "gone"), *((at, "here") for at in range(0, 100_000, 5_000))]
    log: Log = [[event(first + at, service) for at, service in events], [], [], []]
    oracle = publish(kafka, topics, log)
    env = env_for(kafka, topics, server, KAFKA__STOP_AT_END="true", WINDOW__SERIES_TTL_MS="30000")
    codes, said = FlowProcess(env, flow="flows.bridge").run()
    assert codes == [0], said
    for query in ("count by (service) (telemetry_requests_total)", "telemetry_request_duration_seconds"):
        before = {dict(key)["service"] for key in server.query(query, first + 40_000)}
        after = {dict(key)["service"] for key in server.query(query, end_of(oracle))}
        assert (before, after) == ({"gone", "here"}, {"here"})


def test_receiver_without_native_histograms_gets_the_classic_ones(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, oracle: TallyOracle
) -> None:
    server = PrometheusServer(tmp_path / "plain", features="", out_of_order="100y").start()
    try:
        codes, said = FlowProcess(env_for(kafka, topics, server, KAFKA__STOP_AT_END="true"), flow="flows.bridge").run()
        assert codes == [0], said
        assert "native_unsupported" in said
        assert_equals_oracle(server, oracle)
        assert server.query("telemetry_request_duration_seconds", end_of(oracle)) == {}
    finally:
        server.stop()


@pytest.mark.parametrize("stop_at_end", ["true", "false"])
def test_address_where_nobody_takes_samples_ends_the_flow_with_one_line(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, oracle: TallyOracle, stop_at_end: str
) -> None:
    server = PrometheusServer(tmp_path / "prometheus", out_of_order="100y").start()
    env = env_for(kafka, topics, server, KAFKA__STOP_AT_END=stop_at_end, WINDOW__IDLE_AFTER_MS="500")
    wrong = env | {"TAILMARK_PROMETHEUS__REMOTE_WRITE_URL": f"{server.write_url}/nowhere"}
    try:
        codes, said = FlowProcess(wrong, tmp_path / "recovery", "flows.bridge").run()
        assert codes == [1]
        assert "is refused with 404" in said
        assert "Traceback" not in said
        last = FlowProcess(env | {"TAILMARK_KAFKA__STOP_AT_END": "true"}, tmp_path / "recovery", "flows.bridge")
        codes, said = last.run()
        assert codes == [0], said
        assert_equals_oracle(server, oracle)
    finally:
        server.stop()

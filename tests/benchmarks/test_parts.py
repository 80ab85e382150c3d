"""The benchmark itself works: whatever it measures on a machine that runs tests, it measures all of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import measure
from benchmarks.bench import Bench
from benchmarks.cluster import Cluster
from benchmarks.load import Load, publish
from benchmarks.report import Figure, write_json
from benchmarks.watched import NATIVE, stages_of
from tests.kafka_log import read_topic, topic_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import KafkaCluster

EVENTS = 3_000


@pytest.fixture
def cluster(kafka: KafkaCluster, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(kafka.bootstrap_servers, tmp_path)
    yield cluster
    cluster.delete_all()


def test_throughput_and_stages_are_measured_and_leave_no_topic(kafka: KafkaCluster, cluster: Cluster) -> None:
    figures = measure(Bench(cluster, EVENTS, 1, 2, lambda _: None), ["throughput", "stages"])
    measured = {figure.name: figure.value for figure in figures}
    assert [figure.target for figure in figures if figure.target is not None] == [2.5, 60.0]
    assert measured["decode"] > 0
    assert measured[NATIVE] > 0
    assert sum(figure.value for figure in figures if figure.part == "stages") == pytest.approx(100)
    cluster.delete_all()
    prefix = cluster.name("").partition(".")[0]
    assert not [name for name in topic_names(kafka.client_options) if name.startswith(prefix)]


def test_cost_of_the_archive_is_measured_when_it_holds_every_event(cluster: Cluster) -> None:
    figures = measure(Bench(cluster, EVENTS, 1, 2, lambda _: None), ["archive"])
    measured = {figure.name: figure.value for figure in figures}
    assert 10 < measured["bytes on disk an event"] < 200
    assert not list(cluster.directory.glob("archive*"))


def test_load_has_the_events_and_panes_that_it_says(kafka: KafkaCluster, cluster: Cluster) -> None:
    load = Load(name="few", events=EVENTS, rate_per_s=150, services=4, endpoints=3, ends_with_heartbeats=True)
    published = publish(cluster, load)
    records = read_topic(kafka.client_options, published.topic)
    events = [json.loads(record.value or b"") for record in records if b"heartbeat" not in (record.value or b"")]
    assert len(records) == published.records
    assert len(events) == published.events == pytest.approx(EVENTS, rel=0.1)
    seen = {(event["service"], event["endpoint"]) for event in events}
    assert load.duration_ms == 20_000
    assert published.series_at[-1] == len(seen) <= load.series
    assert all(0 <= event["timestamp_ms"] - published.start_ms < load.duration_ms for event in events)


def test_time_in_a_library_counts_where_it_was_called() -> None:
    root = __file__.removesuffix("tests/benchmarks/test_parts.py")
    decode = (f"{root}operators/kernels/decode.py", 1, "decode")
    sort, wrapper = ("~", 0, "<method 'sort'>"), ("/lib/numpy/fromnumeric.py", 1, "sort")
    windows = (f"{root}operators/kernels/windows.py", 1, "advance")
    nobody = ("~", 0, "<built-in run_main>")
    stats = {
        decode: (1, 1, 1.0, 3.0, {nobody: (1, 1, 1.0, 3.0)}),
        windows: (1, 1, 0.5, 6.5, {nobody: (1, 1, 0.5, 6.5)}),
        wrapper: (2, 2, 2.0, 8.0, {decode: (1, 1, 0.5, 2.0), windows: (1, 1, 1.5, 6.0)}),
        sort: (2, 2, 6.0, 6.0, {wrapper: (2, 2, 6.0, 6.0)}),
        nobody: (1, 1, 0.25, 9.75, {}),
    }
    found = stages_of(stats)
    assert found == {"decode": pytest.approx(3.0), "windows": pytest.approx(6.5), "bytewax": pytest.approx(0.25)}


def test_json_holds_every_figure_with_its_verdict(tmp_path: Path) -> None:
    figures = [Figure("a", "met", 1.0, "x", 1.5), Figure("a", "missed", 2.0, "x", 1.5), Figure("a", "told", 3.0, "s")]
    write_json(tmp_path / "figures.json", figures)
    rows = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert [(row["name"], row["verdict"]) for row in rows] == [("met", "met"), ("missed", "missed"), ("told", None)]

"""The benchmark of the bridge, and the pusher that decision 1 is measured against, work."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from benchmarks.bench import Bench
from benchmarks.bridge import costs
from benchmarks.cluster import Cluster
from benchmarks.direct_push import batch_of
from benchmarks.processes import Child
from local.ports import free_port
from tests.sinks.scripted_receiver import ScriptedReceiver, Told
from tests.sinks.wire_reader import read_request, real

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import KafkaCluster


def test_costs_of_the_bridge_are_measured(kafka: KafkaCluster, tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("there is no `prometheus` on this machine")
    cluster = Cluster(kafka.bootstrap_servers, tmp_path)
    try:
        figures = costs(Bench(cluster, 3_000, 1, 2, lambda _: None))
    finally:
        cluster.delete_all()
    assert [figure.unit for figure in figures] == ["x", "µs", "x", "µs"]


def test_pusher_writes_what_it_was_sent() -> None:
    receiver, port = ScriptedReceiver(lambda _: Told(204)), free_port()
    child = Child(["-m", "benchmarks.direct_push", str(port), receiver.url], {})
    try:
        deadline = time.monotonic() + 60
        while not receiver.taken and time.monotonic() < deadline:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outbox:
                outbox.sendto(
                    json.dumps({"service": "a", "endpoint": "/", "status": 200}).encode(), ("127.0.0.1", port)
                )
            time.sleep(0.1)
        assert dict(receiver.taken[0].labels) == {
            "__name__": "direct_requests_total",
            "code": "200",
            "endpoint": "/",
            "service": "a",
        }
    finally:
        child.kill()
        receiver.close()


def test_push_has_one_sample_for_each_counter() -> None:
    counts = Counter({("a", "/", "200"): 3, ("b", "", "500"): 4})
    found = read_request("1.0", batch_of(counts, 1_763_900_000_000).body())
    assert [(dict(one.labels)["service"], real(one.samples[0][1])) for one in found] == [("a", 3.0), ("b", 4.0)]

"""A flow that is killed again and again leaves a topic as if nothing had happened: no record lost, none twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kafka_log import NewRecord, produce, read_topic, wait_for_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import KafkaCluster

ROOT = Path(__file__).parents[2]
FLOW = Path(__file__).with_name("counting_copy_flow.py")
KILLS = int(os.environ.get("FAULT_KILLS", "5"))
SEED = int(os.environ.get("FAULT_SEED", "20261123"))
KEYS = 997
CHUNK_RECORDS = 100
CHUNK_S = 0.05
STALL_S = 0.03


class Feeder(threading.Thread):
    """Writes numbered records at a steady rate until told to stop."""

    def __init__(self, options: dict[str, str], topic: str) -> None:
        super().__init__(daemon=True)
        self.options, self.topic = options, topic
        self.fed = 0
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.wait(CHUNK_S):
            numbers = range(self.fed, self.fed + CHUNK_RECORDS)
            produce(self.options, self.topic, [NewRecord(b"%d" % n, key=b"%d" % (n % KEYS)) for n in numbers])
            self.fed += CHUNK_RECORDS


@pytest.fixture
def start(tmp_path: Path, kafka: KafkaCluster) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts the flow and returns when it is about to read."""
    running: list[subprocess.Popen[str]] = []

    def run(source: str, target: str, gather_s: float | None) -> subprocess.Popen[str]:
        arguments = [kafka.bootstrap_servers, source, target, str(tmp_path / "recovery"), str(gather_s), str(STALL_S)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, FLOW, *arguments], env=environment, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.parametrize("gather_s", [0.0, 0.1, None])
def test_no_record_is_lost_or_written_twice_however_often_the_flow_is_killed(
    kafka: KafkaCluster,
    make_topic: Callable[..., str],
    start: Callable[..., subprocess.Popen[str]],
    gather_s: float | None,
) -> None:
    if "bootstrap.servers" not in kafka.client_options or len(kafka.client_options) > 1:
        pytest.skip("the flow of this test speaks to brokers without TLS and SASL")
    moments = random.Random(f"{SEED} {gather_s}")
    source, target = make_topic("in", partitions=4), make_topic("out", partitions=4)
    feeder = Feeder(kafka.client_options, source)
    feeder.start()
    survived = 0
    for _ in range(KILLS):
        process = start(source, target, gather_s)
        time.sleep(moments.uniform(0.8, 2.2))
        survived += process.poll() is None
        process.kill()
        process.wait()
    feeder.enough.set()
    feeder.join()
    start(source, target, gather_s)
    wait_for_records(kafka.client_options, target, lambda found: len({r.headers[0] for r in found}) >= feeder.fed)
    records = read_topic(kafka.client_options, target)
    times = Counter(dict(record.headers)["id"] for record in records)
    assert survived == KILLS, "the flow ended by itself"
    assert [id_ for id_, count in times.items() if count > 1] == [], "written twice"
    assert len(times) == feeder.fed, "lost or invented"
    numbers = defaultdict(list)
    for record in records:
        numbers[record.key].append(int(record.value or b""))
    wrong = [key for key, found in numbers.items() if found != list(range(1, len(found) + 1))]
    assert wrong == [], "state was lost, or counted twice"

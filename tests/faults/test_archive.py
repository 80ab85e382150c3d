"""The archive under SIGKILL and on a full disk, with somebody who reads it all the while.

`FAULT_KILLS` and `FAULT_SEED` make longer and other runs of it.
"""

from __future__ import annotations

import os
import random
import threading
from typing import TYPE_CHECKING

import polars as pl
import pytest

from tests.archive_log import ArchiveOracle, Place, assert_holds, files, scan
from tests.conftest import PARTITIONS
from tests.faults.small_disk import MIB
from tests.faults.story import KAFKA_MS, LATENESS_MS, SLIDE_MS, Feeder, eventually, settings_of, story, write
from tests.faults.supervision import stop_cleanly, the_one_line
from tests.faults.test_kill import kill_one
from tests.flow_process import FlowProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics
    from tests.faults.small_disk import SmallDisk
    from tests.faults.story import Story

KILLS = int(os.environ.get("FAULT_KILLS", "6"))
SEED = int(os.environ.get("FAULT_SEED", "20261123"))
PACE_S = 0.25


class Reader(threading.Thread):
    """Scans an archive again and again; every scan must succeed, show no row twice, and lack none that was seen.

    Attributes:
        scans: How often it has read.
        failure: What went wrong; None when nothing did.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._enough = threading.Event()
        self.scans = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        seen: set[Place] = set()
        while not self._enough.wait(0.02):
            # There is nothing to scan before the first file.
            if self.failure is None and self._path.is_dir() and files(self._path):
                try:
                    found = scan(self._path).select("partition", "offset", "item", "service").collect().rows()
                    now = {row[:3] for row in found}
                    assert len(now) == len(found), "a row is there twice"
                    assert seen <= now, "a row has gone"
                    seen = now
                    self.scans += 1
                except (AssertionError, pl.exceptions.PolarsError, OSError) as error:
                    self.failure = error

    def assert_content(self) -> None:
        """Stop, and see that nothing went wrong."""
        self._enough.set()
        self.join()
        assert self.failure is None, self.failure
        assert self.scans > 2


def oracle_of(told: Story) -> ArchiveOracle:
    oracle = ArchiveOracle(slide_ms=SLIDE_MS, lateness_ms=LATENESS_MS)
    for partition, values in enumerate(told.by_partition()):
        for offset, value in enumerate(values):
            oracle.record(partition, offset, value, KAFKA_MS)
    return oracle


def archiving(kafka: KafkaCluster, topics: Topics, path: Path, recovery: Path | None) -> FlowProcess:
    env = settings_of(kafka, topics, ARCHIVE__PATH=str(path), ARCHIVE__PUBLISH_EVERY_MS="700")
    return FlowProcess(env, recovery, "flows.archive")


def wait_for_all(path: Path, oracle: ArchiveOracle) -> None:
    """Wait until readers see every event."""

    def complete() -> bool:
        return bool(files(path)) and scan(path).collect().height >= len(oracle.sent)

    assert eventually(complete, pause_s=0.2)


@pytest.mark.parametrize("processes", [1, 2])
def test_archive_that_is_killed_again_and_again_has_every_event_once_for_whoever_reads_it_meanwhile(
    kafka: KafkaCluster, topics: Topics, told: Story, tmp_path: Path, processes: int
) -> None:
    moments, path = random.Random(f"{SEED} archive {processes}"), tmp_path / "archive"
    flow = archiving(kafka, topics, path, tmp_path / "recovery")
    flow.processes = processes
    feeder = Feeder(kafka, topics.events, told.beats, pace_s=PACE_S * KILLS * 12 / len(told.beats))
    feeder.start()
    reader = Reader(path)
    reader.start()
    for _ in range(KILLS):
        kill_one(flow, moments)
    flow.start().serving()
    feeder.finish()
    oracle = oracle_of(told)
    wait_for_all(path, oracle)
    reader.assert_content()
    stop_cleanly(flow)
    assert_holds(path, oracle)


def test_archive_whose_recovery_directory_is_lost_after_each_kill_has_no_event_twice(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    told, moments, path = story(SEED, beats=30), random.Random(f"{SEED} lost"), tmp_path / "archive"
    write(kafka, topics, told.beats)
    for number in range(3):
        flow = archiving(kafka, topics, path, tmp_path / f"recovery-{number}" if number % 2 else None)
        kill_one(flow, moments)
    flow = archiving(kafka, topics, path, None).start().serving()
    oracle = oracle_of(told)
    wait_for_all(path, oracle)
    stop_cleanly(flow)
    assert_holds(path, oracle)


def test_what_a_kill_left_is_shown_by_the_next_start_though_nothing_comes(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    told, path = story(SEED, beats=10), tmp_path / "archive"
    write(kafka, topics, told.beats)
    flow = archiving(kafka, topics, path, tmp_path / "recovery")
    flow.env = {**flow.env, "TAILMARK_ARCHIVE__PUBLISH_EVERY_MS": "3600000"}
    flow.start().serving()
    assert eventually(lambda: len(list(tmp_path.glob("archive.staging/*/*.arrow"))) >= PARTITIONS)
    assert not eventually(lambda: bool(files(path)), 3)
    flow.kill()
    flow.wait()
    flow = archiving(kafka, topics, path, tmp_path / "recovery").start().serving()
    oracle = oracle_of(told)
    wait_for_all(path, oracle)
    stop_cleanly(flow)
    assert_holds(path, oracle)


def test_full_archive_disk_stops_the_flow_and_room_again_costs_nothing(
    kafka: KafkaCluster, topics: Topics, told: Story, small_disk: Callable[[int], SmallDisk], tmp_path: Path
) -> None:
    disk = small_disk(64 * MIB)
    path = disk.path / "archive"
    flow = archiving(kafka, topics, path, tmp_path / "recovery")
    feeder = Feeder(kafka, topics.events, told.beats, pace_s=0.1)
    feeder.start()
    flow.start().serving()
    assert eventually(lambda: path.is_dir() and bool(files(path)))
    disk.fill()
    codes, output = flow.wait()
    assert codes == [1], output
    assert f"archive {path} can't be written: No space left on device" in the_one_line(output)
    seen = files(path)
    disk.clear()
    flow.start().serving()
    feeder.finish()
    oracle = oracle_of(told)
    wait_for_all(path, oracle)
    stop_cleanly(flow)
    assert seen <= files(path)
    assert_holds(path, oracle)


def test_second_flow_on_a_running_archive_is_refused(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    first = archiving(kafka, topics, path, tmp_path / "recovery").start().serving()
    assert eventually(lambda: len(list(tmp_path.glob("archive.staging/*/lock"))) == PARTITIONS)
    second = archiving(kafka, topics, path, tmp_path / "another")
    codes, output = second.run()
    assert codes == [1], output
    assert "another process" in the_one_line(output)
    stop_cleanly(first)

"""Disks that are full: the flow stops and says so in one line, and goes on once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from local.errors import EmbeddedKafkaError
from local.install import install
from local.kafka import EmbeddedKafka
from tests.faults.story import eventually, topics_on
from tests.faults.supervision import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics
    from tests.faults.story import Outcome, Story

MIB = 1024 * 1024
PAGE_BYTES = 4096


class SmallDisk:
    """A file system of its own that can be filled up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Take all room, though somebody else may be writing."""
        with self._ballast.open("ab") as ballast:
            size = shutil.disk_usage(self.path).free
            while size >= PAGE_BYTES:
                try:
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, size)
                except OSError:
                    size //= 2

    def clear(self) -> None:
        """Give the room back."""
        self._ballast.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], SmallDisk]]:
    """A function that mounts a disk of some size."""
    mounted: list[Path] = []

    def mount(size_bytes: int) -> SmallDisk:
        path = tmp_path / f"disk-{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"a disk that can be filled needs the right to mount a tmpfs: {done.stderr.strip()}")
        mounted.append(path)
        return SmallDisk(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def filled(small_disk: Callable[[int], SmallDisk]) -> Iterator[tuple[SmallDisk, EmbeddedKafka]]:
    """A broker on a disk that can be filled."""
    disk = small_disk(512 * MIB)
    with EmbeddedKafka(disk.path / "kafka", runtime=install(say=print)) as broker:
        yield disk, broker


def has_ended(broker: EmbeddedKafka) -> bool:
    try:
        broker.check()
    except EmbeddedKafkaError:
        return True
    return False


def test_full_disk_of_the_broker_and_room_again_cost_nothing(
    filled: tuple[SmallDisk, EmbeddedKafka], told: Story, expected: Outcome, tmp_path: Path
) -> None:
    disk, broker = filled
    scene = Scene(*topics_on(broker), told, tmp_path / "recovery")
    scene.begin()
    disk.fill()
    assert eventually(lambda: has_ended(broker)), "a broker that can't write ends"
    scene.supervisor.watch()
    disk.clear()
    broker.start_broker()
    scene.assert_outcome(expected)


def test_full_recovery_disk_stops_the_flow_and_room_again_costs_nothing(
    kafka: KafkaCluster,
    topics: Topics,
    told: Story,
    expected: Outcome,
    small_disk: Callable[[int], SmallDisk],
) -> None:
    disk = small_disk(64 * MIB)
    scene = Scene(kafka, topics, told, disk.path / "recovery")
    scene.begin()
    disk.fill()
    assert "can't be written: database or disk is full" in scene.supervisor.expect_stop()
    assert "disk" in scene.supervisor.refused()
    disk.clear()
    scene.assert_outcome(expected)

"""Disks that are full: the flow stops and says so in one line, and goes on once there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from local.errors import EmbeddedKafkaError
from local.install import install
from local.kafka import EmbeddedKafka
from tests.faults.small_disk import MIB
from tests.faults.story import eventually, topics_on
from tests.faults.supervision import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics
    from tests.faults.small_disk import SmallDisk
    from tests.faults.story import Outcome, Story


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

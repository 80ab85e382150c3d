"""What people do to recovery directories: the flow gives the right rows, or refuses and says what to do."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

from tests.faults.supervision import Scene, stop_cleanly

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics
    from tests.faults.story import Outcome, Story

LATER_BEAT = 40
BACKUP_S = 600


def test_directory_restored_from_an_older_backup_costs_nothing(
    kafka: KafkaCluster, topics: Topics, told: Story, expected: Outcome, tmp_path: Path
) -> None:
    scene = Scene(kafka, topics, told, tmp_path / "recovery")
    scene.flow.backup_s = BACKUP_S
    scene.begin()
    # All files at one moment, as a snapshot of the disk has them.
    scene.flow.signal(signal.SIGSTOP)
    shutil.copytree(tmp_path / "recovery", tmp_path / "backup")
    scene.flow.signal(signal.SIGCONT)
    scene.feeder.wait_for(LATER_BEAT)
    scene.flow.kill()
    scene.flow.wait()
    shutil.rmtree(tmp_path / "recovery")
    shutil.copytree(tmp_path / "backup", tmp_path / "recovery")
    scene.assert_outcome(expected)


def test_damaged_directory_is_refused_until_what_was_lost_is_back(
    kafka: KafkaCluster, topics: Topics, told: Story, expected: Outcome, tmp_path: Path
) -> None:
    recovery = tmp_path / "recovery"
    scene = Scene(kafka, topics, told, recovery)
    scene.begin()
    stop_cleanly(scene.flow)
    part = recovery / "part-1.sqlite3"
    shutil.move(part, tmp_path / "kept")
    assert "part-1.sqlite3 is missing; put it back, or give an empty" in scene.supervisor.refused()
    shutil.copy(tmp_path / "kept", part)
    os.truncate(part, part.stat().st_size // 2)
    assert "part-1.sqlite3 is damaged" in scene.supervisor.refused()
    shutil.copy(tmp_path / "kept", part)
    scene.assert_outcome(expected)

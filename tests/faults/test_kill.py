"""The whole flow under SIGKILL: its topics read as if nothing had happened, to the byte.

`FAULT_KILLS` and `FAULT_SEED` make longer and other runs of it.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.story import eventually
from tests.faults.supervision import Scene, stop_cleanly

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics
    from tests.faults.story import Outcome, Story
    from tests.flow_process import FlowProcess

KILLS = int(os.environ.get("FAULT_KILLS", "6"))
SEED = int(os.environ.get("FAULT_SEED", "20261123"))
BEATS_PER_KILL = 12
PACE_S = 0.25
LIVES_S = (0.1, 3.5)
ENDS_S = 5.0


def kill_one(flow: FlowProcess, moments: random.Random) -> None:
    """Let the flow live for a while, kill one of its processes, and let the others end or go the same way."""
    flow.start().serving()
    time.sleep(moments.uniform(*LIVES_S))
    victim = moments.choice(flow.running)
    assert victim.poll() is None, flow.wait()
    victim.kill()
    # A process that has not met its peers yet waits for them for ever.
    others_ended = eventually(lambda: all(process.poll() is not None for process in flow.running), ENDS_S)
    output = flow.output()
    flow.kill()
    codes, _ = flow.wait()
    assert 0 not in codes, "a process of a cluster that lost another one has nothing to be content with"
    assert others_ended or "retrying" in output, output


@pytest.mark.parametrize("processes", [1, 2])
def test_flow_killed_again_and_again_leaves_the_topics_of_one_that_was_not(
    kafka: KafkaCluster, topics: Topics, told: Story, expected: Outcome, tmp_path: Path, processes: int
) -> None:
    moments = random.Random(f"{SEED} {processes}")
    pace_s = PACE_S * KILLS * BEATS_PER_KILL / len(told.beats)
    scene = Scene(kafka, topics, told, tmp_path / "recovery", pace_s=pace_s)
    scene.flow.processes = processes
    scene.feeder.start()
    for _ in range(KILLS):
        kill_one(scene.flow, moments)
    scene.flow.start().serving()
    scene.assert_outcome(expected)


def test_cluster_of_changing_size_that_is_killed_or_stopped_leaves_the_topics_of_one_process(
    kafka: KafkaCluster, topics: Topics, told: Story, expected: Outcome, tmp_path: Path
) -> None:
    moments = random.Random(f"{SEED} sizes")
    scene = Scene(kafka, topics, told, tmp_path / "recovery", pace_s=PACE_S)
    scene.feeder.start()
    for processes, killed in ((1, True), (2, False), (3, True), (2, True), (1, False)):
        scene.flow.processes = processes
        if killed:
            kill_one(scene.flow, moments)
        else:
            scene.flow.start().serving()
            time.sleep(moments.uniform(*LIVES_S))
            stop_cleanly(scene.flow)
    scene.flow.start().serving()
    scene.assert_outcome(expected)

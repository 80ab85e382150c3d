"""Several instances of a flow: a revived one is shut out, and a shared group name means nothing."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from confluent_kafka import Consumer

from tests.faults.story import assert_same, outcome_in, settings_of, write
from tests.faults.supervision import Scene, Supervisor, the_one_line
from tests.flow_process import FlowProcess, free_ports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics
    from tests.faults.story import Outcome, Story

LATER_BEAT = 60


def test_instance_revived_after_another_took_over_is_shut_out(
    kafka: KafkaCluster, topics: Topics, told: Story, expected: Outcome, tmp_path: Path
) -> None:
    scene = Scene(kafka, topics, told, tmp_path / "recovery")
    scene.begin()
    zombie = scene.flow
    zombie.signal(signal.SIGSTOP)
    try:
        # The directory itself is locked by the one that stands still: whoever takes over has a copy on another machine.
        shutil.copytree(tmp_path / "recovery", tmp_path / "copy")
        env = settings_of(kafka, topics, PROMETHEUS__PORT=str(free_ports(1)[0]))
        scene.supervisor = Supervisor(FlowProcess(env, tmp_path / "copy"))
        scene.supervisor.watch()
        scene.flow.serving()
        scene.feeder.wait_for(LATER_BEAT)
        zombie.signal(signal.SIGCONT)
        codes, output = zombie.wait()
    finally:
        zombie.kill()
    assert codes == [1], output
    assert "has been taken over by another producer" in the_one_line(output)
    scene.assert_outcome(expected)
    assert scene.supervisor.stops == [], "the new instance was not disturbed"


def test_flows_and_consumers_in_one_group_each_see_every_event(
    kafka: KafkaCluster, topics: Topics, told: Story, expected: Outcome, make_topic: Callable[..., str]
) -> None:
    write(kafka, topics, told.beats)
    member = Consumer({**kafka.client_options, "group.id": f"{topics.prefix}-group", "auto.offset.reset": "earliest"})
    member.subscribe([topics.events])
    assert member.poll(30.0) is not None, "the group has a member that owns the partitions"
    ours = FlowProcess(settings_of(kafka, topics, KAFKA__STOP_AT_END="true"))
    outputs = {
        f"KAFKA__TOPICS__{role.upper()}": make_topic(role, max_message_bytes=str(64 * 1024 * 1024))
        for role in ("windows", "alerts", "alerts_state", "dead_letter")
    }
    port = str(free_ports(1)[0])
    other = FlowProcess(settings_of(kafka, topics, KAFKA__STOP_AT_END="true", PROMETHEUS__PORT=port, **outputs))
    try:
        ours.start()
        other.start()
        for flow in (ours, other):
            codes, output = flow.wait()
            assert codes == [0], output
    finally:
        member.close()
        ours.kill()
        other.kill()
    theirs = replace(topics, **{role.rpartition("__")[2].lower(): topic for role, topic in outputs.items()})
    for written in (topics, theirs):
        assert_same(outcome_in(kafka, written).until(told.closed_ms), expected)

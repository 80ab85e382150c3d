"""Clocks that are wrong: rows follow from the log, whatever the machine or a producer thinks the time is."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.dirty_log import START_MS, event
from tests.faults.story import (
    KAFKA_MS,
    Outcome,
    assert_same,
    assert_told_by_the_oracle,
    oracle_of,
    outcome_in,
    settings_of,
    topics_on,
    write,
)
from tests.faults.supervision import Scene
from tests.flow_process import FlowProcess
from tests.kafka_log import NewRecord, read_topic

if TYPE_CHECKING:
    from tests.conftest import KafkaCluster, Topics
    from tests.faults.story import Story

SOURCE = Path(__file__).with_name("wrong_clock.c")
BACK_S, FORWARD_S = -1800, 1800
HOLD_AT_BEAT = 50
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that gives a process a clock of its own."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a process with a clock of its own needs a C compiler")
    library = tmp_path_factory.mktemp("clock") / "wrong_clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def test_clock_set_back_and_forward_changes_no_row(
    kafka: KafkaCluster, topics: Topics, told: Story, expected: Outcome, tmp_path: Path, wrong_clock: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    scene = Scene(kafka, topics, told, tmp_path / "recovery")
    scene.flow.env = {**scene.flow.env, "LD_PRELOAD": str(wrong_clock), "WRONG_CLOCK": str(clock)}
    scene.feeder.hold_at = HOLD_AT_BEAT
    scene.begin()
    clock.write_text(str(FORWARD_S))
    scene.feeder.wait_for(HOLD_AT_BEAT)
    clock.write_text(str(BACK_S))
    scene.feeder.finish()
    # Bytewax rests until a time of day, which is now half an hour away: a watchdog ends what stands still.
    scene.flow.kill()
    scene.flow.wait()
    scene.assert_outcome(expected)


def test_producer_an_hour_ahead_is_dead_lettered_when_the_brokers_stamp_records(
    kafka: KafkaCluster, told: Story, expected: Outcome
) -> None:
    kafka, topics = topics_on(kafka, message_timestamp_type="LogAppendTime")
    ahead_ms = int(time.time() * 1000) + HOUR_MS
    rogue = [NewRecord(event(ahead_ms + number), b"k", number % 4, timestamp_ms=KAFKA_MS) for number in range(40)]
    write(kafka, topics, [*told.beats[:-1], rogue, told.beats[-1]])
    codes, output = FlowProcess(settings_of(kafka, topics, KAFKA__STOP_AT_END="true")).run()
    assert codes == [0], output
    wrong = {record.value for record in rogue}
    letters = [record for record in read_topic(kafka.client_options, topics.dead_letter) if record.value in wrong]
    assert {record.value for record in letters} == wrong
    assert len(letters) == len(rogue)
    assert {dict(record.headers)["dlq.error.reason"] for record in letters} == {b"timestamp_in_future"}
    found = outcome_in(kafka, topics)
    rest = Outcome(Counter({record: times for record, times in found.records.items() if record[2] not in wrong}))
    assert_same(rest.until(told.closed_ms), expected)


def test_producer_that_stamps_its_own_records_ahead_makes_the_rest_of_its_partition_late(
    kafka: KafkaCluster, topics: Topics, told: Story
) -> None:
    half = len(told.beats) // 2
    ahead = NewRecord(event(START_MS + HOUR_MS), b"k", 0, timestamp_ms=START_MS + HOUR_MS)
    beats = [*told.beats[:half], [ahead], *told.beats[half:]]
    write(kafka, topics, beats)
    codes, output = FlowProcess(settings_of(kafka, topics, KAFKA__STOP_AT_END="true")).run()
    assert codes == [0], output
    oracle = oracle_of(replace(told, beats=beats).by_partition())
    assert_told_by_the_oracle(outcome_in(kafka, topics), oracle)
    assert oracle.late > sum(len(beat) for beat in told.beats[half:]) // 4, "no other partition is late for it"

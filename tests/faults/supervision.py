"""A flow that is started again when it stops, as whoever runs it would, while a story is told."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.faults.story import Feeder, assert_same, outcome_in, settings_of, wait_for_windows
from tests.flow_process import FlowProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics
    from tests.faults.story import Outcome, Story

PACE_S = 0.1
FIRST_WINDOWS = 100
LOOK_EVERY_S = 0.2
FINISH_S = 120.0


def the_one_line(output: str) -> str:
    """Return the line that says why a flow stopped; there must be one, and no traceback."""
    lines = [line for line in output.splitlines() if line.startswith("tailmark: ")]
    assert len(lines) == 1, output
    assert "Traceback" not in output, output
    return lines[0]


def stop_cleanly(flow: FlowProcess) -> None:
    """End a flow by SIGTERM, with a last snapshot."""
    flow.serving()
    flow.signal(signal.SIGTERM)
    codes, output = flow.wait()
    assert set(codes) == {0}, (codes, output)


@dataclass
class Supervisor:
    """Starts a flow again whenever it stops by itself.

    Attributes:
        flow: The flow.
        stops: Why it stopped, each time.
    """

    flow: FlowProcess
    stops: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Start it if it does not run; if it did, it must have stopped with an error, in one line."""
        if not self.flow.running:
            self.flow.start()
        elif any(process.poll() is not None for process in self.flow.running):
            self.stops.append(self.expect_stop())
            self.flow.start()

    def expect_stop(self) -> str:
        """Wait until the flow stops by itself and return the line that says why."""
        codes, output = self.flow.wait()
        assert set(codes) == {1}, output
        return the_one_line(output)

    def refused(self) -> str:
        """Start the flow and return the line with which it refuses to run."""
        self.flow.start()
        return self.expect_stop()

    def assert_outcome(self, kafka: KafkaCluster, topics: Topics, expected: Outcome) -> None:
        """Wait until everything that must come of the log is there, stop cleanly, and compare."""
        deadline = time.monotonic() + FINISH_S
        while True:
            self.watch()
            found = outcome_in(kafka, topics)
            if found.records.total() >= expected.records.total():
                break
            if time.monotonic() > deadline:
                self.flow.signal(signal.SIGABRT)  # it says where it stands
                pytest.fail(f"not all records came, {self.stops}, {self.flow.wait()}")
            time.sleep(LOOK_EVERY_S)
        stop_cleanly(self.flow)
        assert_same(outcome_in(kafka, topics), expected)


class Scene:
    """A flow under supervision, and a story that is being told to it."""

    def __init__(
        self, kafka: KafkaCluster, topics: Topics, told: Story, recovery: Path, *, pace_s: float = PACE_S
    ) -> None:
        """Set the scene.

        Args:
            kafka: Where.
            topics: All topics.
            told: The story.
            recovery: Recovery directory of the flow.
            pace_s: Time between beats.
        """
        self.kafka, self.topics = kafka, topics
        self.supervisor = Supervisor(FlowProcess(settings_of(kafka, topics), recovery))
        self.feeder = Feeder(kafka, topics.events, told.beats, pace_s=pace_s)

    @property
    def flow(self) -> FlowProcess:
        """The flow."""
        return self.supervisor.flow

    def begin(self) -> None:
        """Start both, and wait until windows come."""
        self.feeder.start()
        self.supervisor.watch()
        wait_for_windows(self.kafka, self.topics, FIRST_WINDOWS)

    def assert_outcome(self, expected: Outcome) -> None:
        """Tell the rest of the story at once and compare what comes of it."""
        self.feeder.finish()
        self.supervisor.assert_outcome(self.kafka, self.topics, expected)

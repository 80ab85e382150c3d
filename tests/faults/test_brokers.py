"""Brokers that restart, die, freeze or fill up: the flow waits, or stops and says why; nothing is lost or doubled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from local.install import install
from local.kafka import EmbeddedKafka
from tests.faults.story import topics_on
from tests.faults.supervision import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.story import Outcome, Story


def test_broker_that_restarts_under_load_costs_nothing(
    hurt: EmbeddedKafka, told: Story, expected: Outcome, tmp_path: Path
) -> None:
    scene = Scene(*topics_on(hurt), told, tmp_path / "recovery")
    scene.begin()
    hurt.restart()
    scene.assert_outcome(expected)


def test_broker_that_is_frozen_and_thawed_costs_nothing(
    hurt: EmbeddedKafka, told: Story, expected: Outcome, tmp_path: Path
) -> None:
    scene = Scene(*topics_on(hurt), told, tmp_path / "recovery")
    scene.begin()
    hurt.freeze()
    time.sleep(3.0)
    scene.supervisor.watch()
    hurt.thaw()
    scene.assert_outcome(expected)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """Three brokers, every record on all of them, two must confirm."""
    with EmbeddedKafka(tmp_path_factory.mktemp("three"), brokers=3, runtime=install(say=print)) as cluster:
        yield cluster


def test_one_of_three_brokers_killed_costs_nothing(
    three: EmbeddedKafka, told: Story, expected: Outcome, tmp_path: Path
) -> None:
    scene = Scene(*topics_on(three), told, tmp_path / "recovery")
    scene.begin()
    three.kill(1)
    time.sleep(3.0)
    scene.supervisor.watch()
    three.start_broker(1)
    scene.assert_outcome(expected)

"""What fault tests share: the story they tell, what must come of it, and a broker that may be hurt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from local.install import install
from local.kafka import EmbeddedKafka
from tests.faults.story import (
    Outcome,
    Story,
    assert_told_by_the_oracle,
    outcome_in,
    settings_of,
    story,
    topics_on,
    write,
)
from tests.flow_process import FlowProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import KafkaCluster

SEED = 20261123


@pytest.fixture(autouse=True)
def end_every_flow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End what a failed test leaves running."""
    started: list[FlowProcess] = []
    start = FlowProcess.start

    def start_and_remember(flow: FlowProcess) -> FlowProcess:
        started.append(flow)
        return start(flow)

    monkeypatch.setattr(FlowProcess, "start", start_and_remember)
    yield
    for flow in started:
        flow.kill()


@pytest.fixture(scope="session")
def told() -> Story:
    """The story of most fault tests."""
    return story(SEED)


@pytest.fixture(scope="session")
def expected(kafka: KafkaCluster, told: Story) -> Outcome:
    """What a flow that nobody disturbs makes of the story, up to where the log alone closes windows."""
    topics = topics_on(kafka)[1]
    write(kafka, topics, told.beats)
    codes, output = FlowProcess(settings_of(kafka, topics, KAFKA__STOP_AT_END="true")).run()
    assert codes == [0], output
    outcome = outcome_in(kafka, topics)
    assert_told_by_the_oracle(outcome, told.by_partition())
    return outcome.until(told.closed_ms)


@pytest.fixture(scope="module")
def hurt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker for the tests of a module, each of which may hurt it and then leaves it running."""
    with EmbeddedKafka(tmp_path_factory.mktemp("hurt"), runtime=install(say=print)) as broker:
        yield broker

"""What fault tests share: the story they tell, what must come of it, and a broker that may be hurt."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from local.install import install
from local.kafka import EmbeddedKafka
from tests.faults.small_disk import SmallDisk
from tests.faults.story import (
    Outcome,
    Story,
    assert_told_by_the_oracle,
    oracle_of,
    outcome_in,
    settings_of,
    story,
    topics_on,
    write,
)
from tests.flow_process import FlowProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import KafkaCluster

SEED = 20261123
TABLE = pytest.StashKey[list[str]]()
"""What the chaos test has to say, for the end of the run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make chaos` ask for the tests that take long, and say how long."""
    group = parser.getgroup("chaos")
    group.addoption("--chaos", action="store_true", help="run the fault tests that take long, and nothing else")
    group.addoption("--chaos-faults", type=int, default=200, help="faults in a run of chaos")
    group.addoption("--chaos-minutes", type=float, default=60.0, help="length of a run of chaos")
    group.addoption("--chaos-seed", type=int, default=SEED, help="decides which faults come when")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests, or all others."""
    wanted = bool(config.getoption("chaos", default=False))
    left_out = [item for item in items if (item.get_closest_marker("chaos") is not None) is not wanted]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of a run of chaos."""
    lines = config.stash.get(TABLE, [])
    if lines:
        terminalreporter.section("chaos")
        terminalreporter.write_line("\n".join(lines))


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
    assert_told_by_the_oracle(outcome, oracle_of(told.by_partition()))
    return outcome.until(told.closed_ms)


@pytest.fixture(scope="module")
def hurt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker for the tests of a module, each of which may hurt it and then leaves it running."""
    with EmbeddedKafka(tmp_path_factory.mktemp("hurt"), runtime=install(say=print)) as broker:
        yield broker


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

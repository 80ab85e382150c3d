"""State of the bridge: it comes back as it left, is refused in pieces, and stays bounded; its format is frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.bridge import flow
from flows.settings import load_settings
from operators.kernels.codec import StateError, pack
from operators.kernels.tallies import Tallies
from operators.tally import ShardTallies
from operators.vitals import ShardVitals, Vitals
from sinks.remote_write_state import waiting_from_bytes
from tests.contracts.storage import envelope, layouts, of_next_release, snapshots
from tests.contracts.test_storage_format import WITH_STATE, fields_by_kind, leaves
from tests.dirty_log import START_MS, dirty_log, event
from tests.flow_process import FlowProcess, settings_for
from tests.integration.bridge_log import publish, traced
from tests.kernels.tally_world import RULES, TallyWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from operators.kernels.tally_frame import TallyFrame
    from tests.conftest import KafkaCluster, Topics

FORMAT = Path(__file__).with_name("bridge_storage")
NOBODY = "http://127.0.0.1:9/api/v1/write"
LOADERS: dict[str, Callable[[bytes], Any]] = {
    "tally": lambda data: ShardTallies(RULES, Vitals("test", "events"), ShardVitals(), data),
    "tallies": lambda data: Tallies.from_bytes(RULES, data),
}


def frozen(name: str) -> list[str]:
    return (FORMAT / name).read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def samples() -> dict[str, bytes]:
    """A snapshot of each kind, from the middle of a log with traces, with panes that are open."""
    world = TallyWorld(2)
    for partition, values in enumerate(traced(dirty_log(5, partitions=2, records=500, span_ms=100_000))):
        world.feed(partition, values)
    outer = max((shard.to_bytes() for shard in world.shards), key=len)
    return {"tally": outer, "tallies": envelope(outer).values["tallies"]}


@pytest.mark.parametrize("kind", LOADERS)
def test_state_of_the_bridge_comes_back_as_it_left(samples: dict[str, bytes], kind: str) -> None:
    assert envelope(LOADERS[kind](samples[kind]).to_bytes()) == envelope(samples[kind])


@pytest.mark.parametrize("kind", LOADERS)
def test_state_of_a_later_bridge_or_in_pieces_is_refused(samples: dict[str, bytes], kind: str) -> None:
    good = samples[kind]
    for bad in (of_next_release(good), pack("other", 1, {}, {}), good[:-1], b"", good[:9] + b"?" + good[10:]):
        with pytest.raises(StateError, match=f"`{kind}`"):
            LOADERS[kind](bad)


def test_state_of_the_bridge_is_bounded_by_what_lives_and_not_by_what_has_been() -> None:
    world, held = TallyWorld(1, replace(RULES, series_ttl_ms=100_000)), []
    for pane in range(240):
        at_ms = START_MS + pane * RULES.slide_ms
        world.feed(0, [event(at_ms + number, f"s{number % 5}", f"/{pane}/{number}") for number in range(20)])
        world.frames.clear()
        if pane in (80, 239):
            held.append(sum(len(shard.to_bytes()) for shard in world.shards))
    after_80_panes, after_240_panes = held
    assert after_240_panes < 1.25 * after_80_panes


def test_ids_of_the_bridge_steps_with_state_are_frozen(kafka: KafkaCluster, topics: Topics) -> None:
    told = {"PROMETHEUS__REMOTE_WRITE_URL": NOBODY, "EVENTS__DEAD_LETTERS": "true"}
    graph = flow(load_settings(settings_for(kafka, topics, **told)))
    ids = sorted(f"{step_id} {kind}" for step_id, kind in leaves(graph.substeps) if kind in WITH_STATE)
    assert ids == frozen("steps.txt"), "a step that is renamed loses its state without a word"


def test_layouts_of_the_bridge_states_are_frozen(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> None:
    publish(kafka, topics, traced(dirty_log(6, partitions=4, records=800, span_ms=60_000)))
    env = settings_for(
        kafka, topics, PROMETHEUS__REMOTE_WRITE_URL=NOBODY, EVENTS__DEAD_LETTERS="true", WINDOW__IDLE_AFTER_MS="200"
    )
    running = FlowProcess(env, tmp_path / "recovery", "flows.bridge").start().serving()
    try:
        stored = wait_for_states(tmp_path / "recovery")
    finally:
        running.kill()
        running.wait()
    found = fields_by_kind([(step_id, *layout) for step_id, data in stored for layout in bridge_layouts(data)])
    now = sorted(
        " ".join([step, kind, f"{version}:", *sorted(names)]) for (step, kind, version), names in found.items()
    )
    assert now == frozen("states.txt"), "raise the version of a state whose layout changes, and read the older one"
    assert any(waiting_in(stored))


def waiting_in(stored: Iterable[tuple[str, bytes]]) -> list[list[tuple[str, TallyFrame]]]:
    """What waits in each sender."""
    return [waiting_from_bytes(data) for step, data in stored if step == "bridge.remote_write.sink"]


def wait_for_states(recovery: Path) -> list[tuple[str, bytes]]:
    from tests.integration.bridge_page import eventually  # noqa: PLC0415

    wanted = {line.split()[0] for line in frozen("steps.txt")} - {"bridge.page"}
    eventually(lambda: {step for step, _ in snapshots(recovery)} >= wanted and any(waiting_in(snapshots(recovery))))
    return list(snapshots(recovery))


def bridge_layouts(data: bytes) -> list[tuple[str, int, str]]:
    """The layouts in a state, of waiting frames too, which stand in a list."""
    found = list(layouts(data))
    for _, frame in envelope(data).values.get("frames", []):
        found += layouts(frame)
    return found

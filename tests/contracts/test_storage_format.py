"""Step ids and state layouts are a storage format: who changes one says so here, in its version, and in the changelog.

Bytewax finds a state by the id of its step: a step that is renamed silently begins anew. So the files beside this test
hold what a recovery directory holds.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.anomaly import flow
from flows.settings import load_settings
from tests.contracts.storage import layouts, snapshots
from tests.dirty_log import START_MS
from tests.flow_process import FlowProcess, settings_for
from tests.incident_log import incident_log
from tests.kafka_log import NewRecord, produce

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bytewax.dataflow import Operator

    from tests.conftest import KafkaCluster, Topics

FORMAT = Path(__file__).with_name("anomaly_storage")
WITH_STATE = {"input", "stateful_batch", "output"}


def frozen(name: str) -> list[str]:
    return (FORMAT / name).read_text(encoding="utf-8").splitlines()


def leaves(steps: Sequence[Operator]) -> Iterator[tuple[str, str]]:
    """Walk to the core operators; yields their ids and kinds."""
    for step in steps:
        if step.substeps:
            yield from leaves(step.substeps)
        else:
            yield step.step_id, type(step).__name__


def fields_by_kind(found: list[tuple[str, str, int, str]]) -> Mapping[tuple[str, str, int], set[str]]:
    fields: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for step_id, kind, version, names in found:
        fields[step_id, kind, version].update(names.split())
    return fields


def test_ids_of_steps_with_state_are_frozen(kafka: KafkaCluster, topics: Topics) -> None:
    graph = flow(load_settings(settings_for(kafka, topics)))
    ids = sorted(f"{step_id} {kind}" for step_id, kind in leaves(graph.substeps) if kind in WITH_STATE)
    assert ids == frozen("steps.txt"), "a step that is renamed loses its state without a word"


@pytest.fixture
def stored(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> list[tuple[str, bytes]]:
    """The snapshots of a flow that has read a log with alerts and dead letters."""
    panes = incident_log(1, partitions=4, panes=60)
    values = [(partition, value) for pane in panes for partition, of_one in enumerate(pane) for value in of_one]
    records = [NewRecord(value, None, partition, (), START_MS + 10**8) for partition, value in values]
    produce(kafka.client_options, topics.events, records)
    codes, said = FlowProcess(settings_for(kafka, topics, KAFKA__STOP_AT_END="true"), tmp_path / "recovery").run()
    assert codes == [0], said
    return list(snapshots(tmp_path / "recovery"))


def test_layouts_of_states_are_frozen(stored: list[tuple[str, bytes]]) -> None:
    found = fields_by_kind([(step_id, *layout) for step_id, data in stored for layout in layouts(data)])
    now = sorted(
        " ".join([step, kind, f"{version}:", *sorted(names)]) for (step, kind, version), names in found.items()
    )
    before = {line.partition(":")[0]: line for line in frozen("states.txt")}
    unannounced = [line for line in now if before.get(line.partition(":")[0], line) != line]
    assert unannounced == [], "raise the version of a state whose layout changes, and read the older one"
    assert now == list(before.values()), "write new versions down in states.txt, and in the changelog"
    with_state = {line.split()[0] for line in frozen("steps.txt")} - {"anomaly.page"}
    assert {step_id for step_id, _ in stored} == with_state
    assert {type(data) for _, data in stored} == {bytes}

"""The bridge to Bytewax: state is bytes of the moment, keys are kept, and the end of the input says nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from operators.stateful import ShardLogic
from operators.vitals import ShardVitals
from tests.contracts.storage import snapshots

if TYPE_CHECKING:
    from pathlib import Path


class Total:
    """Adds up numbers."""

    def __init__(self, total: int = 0) -> None:
        self.total = total

    def step(self, item: int) -> list[int]:
        self.total += item
        return [self.total]

    def to_bytes(self) -> bytes:
        return b"%d" % self.total


def run(items: list[Any], vitals: ShardVitals, recovery: Path | None = None) -> list[int]:
    def build(data: bytes | None) -> ShardLogic[int, int]:
        return ShardLogic(Total(int(data or 0)), vitals)

    out: list[tuple[str, int]] = []
    graph = Dataflow("test")
    keyed = op.key_on("key", op.input("in", graph, TestingSource(items, batch_size=2)), lambda _: "all")
    op.output("out", op.stateful_batch("total", keyed, build), TestingSink(out))
    options: dict[str, Any] = {}
    if recovery is not None:
        options = {"epoch_interval": timedelta(0), "recovery_config": RecoveryConfig(recovery, timedelta(0))}  # type: ignore[no-untyped-call]
    run_main(graph, **options)  # type: ignore[no-untyped-call]
    return [total for _, total in out]


def test_items_are_stepped_through_in_their_order_and_the_end_emits_nothing() -> None:
    assert run([1, 2, 3, 4, 5], ShardVitals()) == [1, 3, 6, 10, 15]


def test_job_that_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)  # type: ignore[no-untyped-call]
    items = [1, 2, TestingSource.EOF(), 3, TestingSource.EOF(), 4]
    assert [run(items, ShardVitals(), tmp_path) for _ in range(3)] == [[1, 3], [6], [10]]


def test_snapshot_is_bytes_whose_size_is_noted(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)  # type: ignore[no-untyped-call]
    vitals = ShardVitals()
    run([100, 1], vitals, tmp_path)
    assert [data for step_id, data in snapshots(tmp_path) if step_id == "test.total"] == [b"101"]
    assert vitals.snapshot_bytes == 3


def test_broken_invariant_stops_the_worker() -> None:
    with pytest.raises(BytewaxRuntimeError):
        run([1, "two"], ShardVitals())


class TestAgain:
    """What a resumed state said last is said again, once, and only to those who have heard nothing newer."""

    def test_it_is_repeated_when_the_time_has_come(self) -> None:
        logic = ShardLogic(Total(7), ShardVitals(), lambda: [7])
        assert logic.notify_at() is not None
        assert logic.on_notify() == ([7], logic.RETAIN)
        assert logic.notify_at() is None
        assert logic.on_notify() == ([], logic.RETAIN)

    def test_it_is_not_repeated_behind_something_newer(self) -> None:
        logic = ShardLogic(Total(7), ShardVitals(), lambda: [7])
        logic.on_batch([1])
        assert logic.on_notify() == ([], logic.RETAIN)

    def test_new_state_has_nothing_to_repeat(self) -> None:
        assert ShardLogic(Total(), ShardVitals()).notify_at() is None

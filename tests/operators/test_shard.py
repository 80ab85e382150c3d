"""Rows reach their shard before the news that closes their windows, and news reach everybody."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from operators.kernels.sharding import COUNT, PaneRows
from operators.kernels.watermarks import Marks
from operators.shard import EventFrame, shard, shard_name
from tests.contracts.chain import INTAKE as RULES
from tests.contracts.chain import SHARDS, Cut, SourceFrames
from tests.dirty_log import START_MS, event

KAFKA_MS = START_MS + 3_600_000


def sent(frames: list[EventFrame]) -> dict[str, list[Any]]:
    """Run frames through the operator; returns what each shard receives, in order."""
    out: list[tuple[str, Any]] = []
    graph = Dataflow("test")
    op.output("out", shard("shard", op.input("in", graph, TestingSource(frames)), shards=SHARDS), TestingSink(out))
    run_main(graph)  # type: ignore[no-untyped-call]
    received: dict[str, list[Any]] = defaultdict(list)
    for name, item in out:
        received[name].append(item)
    return received


def frames_of(values: list[bytes | None], largest: int) -> list[EventFrame]:
    return SourceFrames(0, [values], RULES).frames(Cut(1, largest), KAFKA_MS)


def test_every_shard_gets_all_news_and_only_the_rows_of_its_services() -> None:
    values: list[bytes | None] = [event(START_MS + 1000 * number, f"s{number % 9}") for number in range(90)]
    frames = frames_of(values, 10)
    news = [frame.news for frame in frames if frame.news is not None]
    received = sent(frames)
    assert set(received) == {shard_name(number) for number in range(SHARDS)}
    rows: list[tuple[str, PaneRows]] = []
    for name, items in received.items():
        assert [item for item in items if isinstance(item, Marks)] == news
        rows += [(name, item) for item in items if isinstance(item, PaneRows)]
    homes = {(service, name) for name, part in rows for service, _ in part.series}
    assert sorted(service for service, _ in homes) == sorted({f"s{number}" for number in range(9)})
    assert sum(int(part.totals[COUNT].sum()) for _, part in rows) == 90


def test_news_of_a_frame_follow_its_rows() -> None:
    frames = frames_of([event(START_MS), event(START_MS + 60_000)], 10)
    items = next(items for items in sent(frames).values() if any(isinstance(item, PaneRows) for item in items))
    kinds = [type(item).__name__ for item in items]
    assert kinds == ["Marks", "PaneRows", "Marks", "Marks"], "announcement, rows, what they completed, the end"


def test_names_of_shards_are_what_they_were_in_every_release() -> None:
    assert [shard_name(number) for number in (0, 7, 63, 4095)] == ["shard-00", "shard-07", "shard-63", "shard-4095"]

"""Open panes: whatever the order and the size of what is added, a pane is the sum of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels import panes as panes_kernel
from operators.kernels.buckets import BUCKET_BITS
from operators.kernels.panes import OpenPanes, Pane, added, merged, stacked, unstacked
from operators.kernels.sharding import PaneRows
from operators.kernels.slots import Slots

if TYPE_CHECKING:
    import pytest

Row = tuple[int, int, int, int, int]
"""Slot, pane, bucket, latency in µs, and whether it failed."""

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-2, 3), st.integers(0, 4000), st.integers(0, 10**6), st.integers(0, 1)),
    min_size=1,
    max_size=12,
)


Sums = tuple[dict[int, tuple[int, ...]], dict[int, int]]
"""Of one pane: by slot its count, errors, sum and maximum; by key the requests in the bucket."""


SERIES = [("shop", f"/{slot}") for slot in range(4)]


def added_to(panes: OpenPanes, rows: list[Row], closed: int | None = None) -> int:
    """Add one column of totals and one bucket row for each event: the least that a shard can be sent."""
    totals = np.array([(slot, pane, 1, failed, us, us) for slot, pane, _, us, failed in rows], np.int64).T
    buckets = np.array([(number, bucket, 1) for number, (_, _, bucket, _, _) in enumerate(rows)], np.int64).T
    return panes.add(PaneRows(SERIES, totals, buckets), Slots(SERIES), closed)


def by_hand(batches: list[list[Row]]) -> dict[int, Sums]:
    found: dict[int, Sums] = {}
    for slot, pane, bucket, latency_us, failed in (row for batch in batches for row in batch):
        stats, counts = found.setdefault(pane, ({}, {}))
        count, errors, sum_us, max_us = stats.get(slot, (0, 0, 0, 0))
        stats[slot] = (count + 1, errors + failed, sum_us + latency_us, max(max_us, latency_us))
        key = slot << BUCKET_BITS | bucket
        counts[key] = counts.get(key, 0) + 1
    return found


def read(pane: Pane) -> Sums:
    assert (np.diff(pane.slots) > 0).all()
    assert (np.diff(pane.keys) > 0).all()
    stats = {slot: tuple(row) for slot, row in zip(pane.slots.tolist(), pane.stats.T.tolist(), strict=True)}
    return stats, dict(zip(pane.keys.tolist(), pane.counts.tolist(), strict=True))


@given(st.lists(ROWS, min_size=1, max_size=6))
def test_pane_is_the_sum_of_its_rows(batches: list[list[Row]]) -> None:
    panes = OpenPanes()
    for batch in batches:
        added_to(panes, batch)
    expected = by_hand(batches)
    assert {pane: read(traffic) for pane, traffic in panes.items()} == expected
    assert panes.first() == min(expected)


@given(st.lists(ROWS, min_size=2, max_size=6))
def test_merging_early_and_often_changes_nothing(batches: list[list[Row]]) -> None:
    eager, lazy = OpenPanes(), OpenPanes()
    for batch in batches:
        added_to(eager, batch)
        eager.first()
        added_to(lazy, batch)
    assert [(pane, read(traffic)) for pane, traffic in eager.items()] == [
        (pane, read(traffic)) for pane, traffic in lazy.items()
    ]


def test_rows_are_merged_before_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panes_kernel, "MAX_PENDING_ROWS", 10)
    panes = OpenPanes()
    for _ in range(20):
        added_to(panes, [(0, 1, 5, 7, 0)] * 3)
        assert sum(rows.shape[1] for _, rows in panes._pending) <= 10
    ((_, pane),) = panes.items()
    assert pane.counts.tolist() == [60]
    assert pane.stats[:, 0].tolist() == [60, 0, 420, 7]


def test_pane_that_is_taken_out_is_gone() -> None:
    panes = OpenPanes()
    added_to(panes, [(0, 1, 5, 7, 0), (0, 2, 5, 7, 0)])
    taken = panes.pop(1)
    assert taken is not None
    assert taken.counts.tolist() == [1]
    assert panes.pop(1) is None
    assert panes.first() == 2
    panes.pop(2)
    assert panes.first() is None


@given(st.lists(ROWS, min_size=1, max_size=4), st.integers(-2, 4))
def test_rows_of_closed_panes_are_left_out_and_counted(batches: list[list[Row]], closed: int) -> None:
    panes = OpenPanes()
    late = sum(added_to(panes, batch, closed) for batch in batches)
    timely = [[row for row in batch if row[1] >= closed] for batch in batches]
    assert {pane: read(traffic) for pane, traffic in panes.items()} == by_hand(timely)
    assert late == sum(map(len, batches)) - sum(map(len, timely))


@given(st.lists(ROWS, max_size=6))
def test_stacked_panes_come_back_as_they_were(batches: list[list[Row]]) -> None:
    panes = OpenPanes()
    for batch in batches:
        added_to(panes, batch)
    held = [pane for _, pane in panes.items()]
    again = unstacked([(len(pane.slots), len(pane.keys)) for pane in held], stacked(held))
    assert [read(pane) for pane in again] == [read(pane) for pane in held]


@given(ROWS)
def test_renumbering_two_series_to_one_adds_them_up(rows: list[Row]) -> None:
    panes = OpenPanes()
    added_to(panes, [(slot, 1, bucket, us, failed) for slot, _, bucket, us, failed in rows])
    slot_of = [2, 5, 2, 1]
    ((_, pane),) = panes.items()
    moved = by_hand([[(slot_of[slot], 1, bucket, us, failed) for slot, _, bucket, us, failed in rows]])
    assert read(pane.renumbered(np.array(slot_of, np.int64))) == moved[1]


def test_counts_are_added_by_key_in_ascending_order() -> None:
    keys, sums = added(np.array([5, 1, 5, 3, 1]), np.array([1, 2, 3, -4, 5]))
    assert (keys.tolist(), sums.tolist()) == ([1, 3, 5], [7, -4, 4])


def test_merged_rows_keep_the_largest_latency_and_add_the_rest() -> None:
    pane = merged(
        np.array([3, 1, 3]), np.array([[1, 2, 3], [0, 1, 1], [10, 20, 30], [9, 8, 7]]), np.array([1]), np.array([6])
    )
    assert pane.slots.tolist() == [1, 3]
    assert pane.stats.tolist() == [[2, 4], [1, 1], [20, 40], [8, 9]]

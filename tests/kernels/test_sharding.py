"""Pre-aggregation against counting by hand: whatever the events, nothing is lost, moved or counted twice."""

from __future__ import annotations

import pickle
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.buckets import MAX_LATENCY_MS, bucket_of
from operators.kernels.intake import EventColumns
from operators.kernels.series import Places
from operators.kernels.sharding import COUNT, ERRORS, MAX_ROWS, MAX_US, PANE, SERIES, SUM_US, PaneRows, split_by_shard

MAX_US_OF_ALL = int(MAX_LATENCY_MS * 1000)


@dataclass
class Tally:
    """What one series did in one pane, counted one event at a time."""

    count: int = 0
    errors: int = 0
    sum_us: int = 0
    max_us: int = 0
    buckets: dict[int, int] = field(default_factory=lambda: defaultdict(int))


Tallies = dict[tuple[int, str, int], Tally]
"""By shard, service and pane."""


def columns(code: list[int], pane: list[int], latency_us: list[int], error: list[bool]) -> EventColumns:
    return EventColumns(
        np.array(code, np.int64), np.array(pane, np.int64), np.array(latency_us, np.int64), np.array(error, np.bool_)
    )


def counted(events: EventColumns, shard_of_code: list[int]) -> Tallies:
    tallies: Tallies = defaultdict(Tally)
    buckets = bucket_of(events.latency_us).tolist()
    rows = zip(
        events.code.tolist(),
        events.pane.tolist(),
        events.latency_us.tolist(),
        events.error.tolist(),
        buckets,
        strict=True,
    )
    for code, pane, latency_us, error, bucket in rows:
        tally = tallies[shard_of_code[code], f"s{code}", pane]
        tally.count += 1
        tally.errors += error
        tally.sum_us += latency_us
        tally.max_us = max(tally.max_us, latency_us)
        tally.buckets[bucket] += 1
    return tallies


def unpacked(parts: list[tuple[int, PaneRows]]) -> Tallies:
    """Read what was split; a series and pane that comes in several parts adds up."""
    tallies: Tallies = defaultdict(Tally)
    for shard, rows in parts:
        names = [rows.series[number][0] for number in rows.totals[SERIES].tolist()]
        for column, name in enumerate(names):
            totals = rows.totals[:, column].tolist()
            tally = tallies[shard, name, totals[PANE]]
            tally.count += totals[COUNT]
            tally.errors += totals[ERRORS]
            tally.sum_us += totals[SUM_US]
            tally.max_us = max(tally.max_us, totals[MAX_US])
        for column, bucket, count in rows.buckets.T.tolist():
            tallies[shard, names[column], int(rows.totals[PANE, column])].buckets[bucket] += count
    return tallies


def places(shard_of_code: list[int]) -> Places:
    """Number codes within their shards, as a table of series does; code 7 stands for series `s7`."""
    series: list[list[tuple[str, str]]] = [[] for _ in range(max(shard_of_code) + 1)]
    numbers = []
    for code, shard in enumerate(shard_of_code):
        numbers.append(len(series[shard]))
        series[shard].append((f"s{code}", "/"))
    return Places(np.array(shard_of_code, np.int64), np.array(numbers, np.int64), series)


def check_split(events: EventColumns, shard_of_code: list[int]) -> list[tuple[int, PaneRows]]:
    parts = split_by_shard(events, places(shard_of_code))
    assert unpacked(parts) == counted(events, shard_of_code)
    return parts


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.sampled_from([-5, 0, 1, 2, 90_000_000, 176_390_000, 176_390_001]),
        st.sampled_from([0, 1, 2, 999, 1_000_000, 10**10, MAX_US_OF_ALL]),
        st.booleans(),
    ),
    max_size=60,
)


@given(EVENTS, st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_split_adds_up_to_the_events(events: list[tuple[int, int, int, bool]], shard_of_code: list[int]) -> None:
    code, pane, latency_us, error = (list(column) for column in zip(*events, strict=True)) if events else ([],) * 4
    check_split(columns(code, pane, latency_us, error), shard_of_code)


@pytest.mark.parametrize("n", [1, MAX_ROWS - 1, MAX_ROWS, MAX_ROWS + 1, 3 * MAX_ROWS + 7])
def test_frame_of_any_size_is_split_exactly(n: int) -> None:
    """A frame grows past its usual size when records hold arrays."""
    rng = np.random.default_rng(n)
    events = EventColumns(
        rng.integers(0, 5, n), rng.integers(10, 13, n), rng.integers(0, 10**7, n), rng.random(n) < 0.1
    )
    check_split(events, [0, 1, 2, 0, 1])


def test_series_codes_past_the_size_of_the_sort_key_are_kept_apart() -> None:
    """One record can bring more new series than the key has numbers."""
    codes = [0, 1, 1 << 20, (1 << 20) + 1, (1 << 21) + 1]
    events = columns(codes * 2, [7] * 10, list(range(10)), [False] * 10)
    shard_of_code = np.zeros((1 << 21) + 2, np.int64)
    number = shard_of_code.copy()
    number[codes] = range(len(codes))
    parts = split_by_shard(events, Places(shard_of_code, number, [[(f"s{code}", "/") for code in codes]]))
    assert unpacked(parts) == counted(events, shard_of_code.tolist())


def test_parts_are_in_the_order_of_shards_and_each_names_its_own_series() -> None:
    parts = check_split(columns([3, 2, 1, 0], [1, 1, 1, 1], [5, 5, 5, 5], [True] * 4), [2, 0, 2, 1])
    assert [shard for shard, _ in parts] == [0, 1, 2]
    assert [sorted(rows.series) for _, rows in parts] == [[("s1", "/")], [("s3", "/")], [("s0", "/"), ("s2", "/")]]


def test_rows_take_only_their_own_series_to_another_process() -> None:
    events = columns([5, 1, 5], [1, 1, 2], [7, 8, 9], [False] * 3)
    shard_of_code = [0] * 8
    parts = check_split(events, shard_of_code)
    moved = [(shard, pickle.loads(pickle.dumps(rows))) for shard, rows in parts]
    assert unpacked(moved) == counted(events, shard_of_code)
    assert [rows.series for _, rows in moved] == [[("s1", "/"), ("s5", "/")]]


def test_split_of_nothing_is_nothing() -> None:
    assert check_split(columns([], [], [], []), [0]) == []

"""When event time is complete: everybody who may still bring something is waited for, and nobody else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.intake import NO_TIME_MS, IntakeRules
from operators.kernels.watermarks import ACTIVE, ENDED, IDLE, Mark, Marks, Watermarks

RULES = IntakeRules(slide_ms=10_000, allowed_lateness_ms=5_000, max_future_ms=0)
PANES = 6


def watermarks(marks: dict[int, Mark] | None = None) -> Watermarks:
    return Watermarks(slide_ms=RULES.slide_ms, panes_in_window=PANES, marks=marks)


def mark(partition: int, top_ms: int, mode: str = ACTIVE) -> Mark:
    return Mark(partition, RULES.frontier(top_ms), top_ms, mode)


def told(*marks: Mark, source: int = 0, sources: int = 1) -> Marks:
    return Marks(source, sources, marks)


def test_slowest_active_partition_decides() -> None:
    w = watermarks()
    w.apply(told(mark(0, 104_999), mark(1, 75_000)))
    assert w.complete() == 7
    w.apply(told(mark(1, 300_000)))
    assert w.complete() == 9


def test_pane_is_complete_when_the_lateness_has_passed_behind_its_end_and_not_before() -> None:
    w = watermarks()
    w.apply(told(mark(0, 104_999)))
    assert w.complete() == 9
    w.apply(told(mark(0, 105_000)))
    assert w.complete() == 10


def test_partition_that_has_brought_nothing_holds_everything_until_it_is_idle() -> None:
    w = watermarks()
    w.apply(told(mark(0, 500_000), mark(1, NO_TIME_MS)))
    before = w.complete()
    assert before is not None
    assert before < 0
    w.apply(told(mark(1, NO_TIME_MS, IDLE)))
    assert w.complete() == 49


def test_nothing_is_complete_before_every_source_has_spoken() -> None:
    w = watermarks()
    w.apply(told(mark(0, 500_000), source=0, sources=3))
    w.apply(told(source=1, sources=3))
    assert w.complete() is None
    w.apply(told(mark(2, 100_000), source=2, sources=3))
    assert w.complete() == 9


def test_resumed_marks_wait_for_every_source_to_speak_again() -> None:
    """One of them may have got new partitions, which hold windows open that the old ones have passed."""
    w = watermarks({0: mark(0, 500_000), 1: mark(1, 500_000, ENDED)})
    assert w.complete() is None
    w.apply(told(mark(0, 500_000), source=0, sources=2))
    assert w.complete() is None
    w.apply(told(mark(1, 500_000), mark(3, NO_TIME_MS), source=1, sources=2))
    complete = w.complete()
    assert complete is not None
    assert complete < 0


def test_when_all_are_idle_the_latest_pane_is_complete_and_later_windows_wait() -> None:
    w = watermarks()
    w.apply(told(mark(0, 104_999, IDLE), mark(1, 20_000, IDLE)))
    assert w.complete() == 11


def test_when_all_ended_every_window_that_has_opened_is_complete() -> None:
    w = watermarks()
    w.apply(told(mark(0, 104_999, ENDED), mark(1, NO_TIME_MS, ENDED)))
    assert w.complete() == 10 + PANES


@pytest.mark.parametrize("mode", [IDLE, ENDED])
def test_input_without_any_event_completes_nothing(mode: str) -> None:
    w = watermarks()
    w.apply(told(mark(0, NO_TIME_MS, mode)))
    assert w.complete() is None


def test_idle_partition_that_wakes_up_is_waited_for_again() -> None:
    w = watermarks()
    w.apply(told(mark(0, 500_000), mark(1, 100_000, IDLE)))
    assert w.complete() == 49
    w.apply(told(mark(1, 110_000)))
    assert w.complete() == 10


def test_marks_survive_a_snapshot() -> None:
    w = watermarks()
    w.apply(told(mark(0, 500_000), mark(7, NO_TIME_MS, IDLE)))
    assert Watermarks.restored(w.plain()) == w.marks


@given(st.integers(0, 10**6))
def test_order_of_news_from_different_partitions_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    logs = {number: sorted(rng.randrange(10**6) for _ in range(5)) for number in range(3)}
    results = []
    for _ in range(2):
        w = watermarks()
        w.apply(told(*(mark(number, NO_TIME_MS) for number in logs)))
        order = [number for number in logs for _ in range(5)]
        rng.shuffle(order)
        left = {number: iter(tops) for number, tops in logs.items()}
        so_far = []
        for number in order:
            w.apply(told(mark(number, next(left[number]))))
            so_far.append(w.complete())
        assert so_far == sorted(so_far, key=lambda pane: -(10**9) if pane is None else pane), "a watermark never falls"
        results.append(so_far[-1])
    assert results[0] == results[1]


def test_event_time_of_all_partitions_is_that_of_the_furthest() -> None:
    w = watermarks()
    assert w.top_ms() == NO_TIME_MS
    w.apply(told(mark(0, 104_999), mark(1, 75_000, IDLE)))
    assert w.top_ms() == 104_999

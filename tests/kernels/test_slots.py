"""Slots of series: the same slot for the same series, whoever names it and however."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.slots import MAX_LISTS, Slots

NAMES = st.tuples(st.sampled_from(["a", "b", "ü-🚀"]), st.sampled_from(["", "/", "/y"]))


@given(st.lists(st.tuples(st.integers(0, 2), NAMES), max_size=60))
def test_series_has_one_slot_in_all_growing_lists(sightings: list[tuple[int, tuple[str, str]]]) -> None:
    slots, plain = Slots(), Slots()
    lists: list[list[tuple[str, str]]] = [[], [], []]
    for source, name in sightings:
        series = lists[source]
        if name not in series:
            series.append(name)
        slot = int(slots.of_numbers(series, np.array([series.index(name)]))[0])
        assert slots.names[slot] == name
        assert slot == int(slots.of([name])[0]) == int(plain.of([name])[0])
    assert sorted(slots.names) == sorted({name for _, name in sightings})


def test_only_series_that_are_referred_to_get_a_slot() -> None:
    slots = Slots([("kept", "/")])
    assert slots.of_numbers([("a", "/"), ("kept", "/"), ("b", "/")], np.array([2, 1, 2])).tolist() == [1, 0, 1]
    assert slots.names == [("kept", "/"), ("b", "/")]


def test_more_lists_than_are_remembered_still_give_the_same_slots() -> None:
    slots = Slots()
    lists = [[("a", "/"), (f"s{number}", "/")] for number in range(3 * MAX_LISTS)]
    for number, series in enumerate(lists):
        assert slots.of_numbers(series, np.array([0, 1])).tolist() == [0, number + 1]

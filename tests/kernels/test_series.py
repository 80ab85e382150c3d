"""Series as numbers: the same number for the same pair, one shard for a service, and every sighting told."""

from __future__ import annotations

import zlib
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.decode import Event
from operators.kernels.series import SeriesTable, shard_of
from tests.dirty_log import START_MS

NAMES = st.tuples(st.sampled_from(["a", "b", "ü-🚀", "x" * 128]), st.sampled_from(["", "/", "/y", "__overflow__"]))


def events(names: list[tuple[str, str]]) -> list[Event]:
    return [
        Event(timestamp_ms=START_MS, service=service, latency_ms=1, endpoint=endpoint) for service, endpoint in names
    ]


@given(st.lists(NAMES, max_size=30), st.lists(NAMES, max_size=30))
def test_code_leads_back_to_its_series_in_every_batch(
    first: list[tuple[str, str]], second: list[tuple[str, str]]
) -> None:
    table = SeriesTable(8)
    codes = [table.codes(events(names)).tolist() for names in (first, second)]
    assert [[table.names[code] for code in batch] for batch in codes] == [first, second]
    assert len(table) == len({*first, *second})


@given(st.lists(NAMES, min_size=1, max_size=30))
def test_all_series_of_a_service_are_in_its_shard(names: list[tuple[str, str]]) -> None:
    table = SeriesTable(8)
    codes = table.codes(events(names))
    shards = table.places().shard[codes].tolist()
    assert shards == [zlib.crc32(service.encode()) % 8 for service, _ in names]
    assert len({(service, shard) for (service, _), shard in zip(names, shards, strict=True)}) == len(dict(names))


@given(st.lists(st.lists(NAMES, max_size=20), max_size=5))
def test_number_in_its_shard_leads_back_to_a_series_and_stays(batches: list[list[tuple[str, str]]]) -> None:
    table = SeriesTable(4)
    told: dict[int, tuple[int, int]] = {}
    for names in batches:
        codes = table.codes(events(names)).tolist()
        places = table.places()
        for code, name in zip(codes, names, strict=True):
            shard, number = int(places.shard[code]), int(places.number[code])
            assert places.series[shard][number] == name
            assert told.setdefault(code, (shard, number)) == (shard, number)
    assert len(set(told.values())) == len(told)


def test_shard_of_a_service_is_what_it_was_in_every_release() -> None:
    """It is part of the state: a service that moves leaves its windows behind."""
    assert [shard_of(service, 64) for service in ("checkout", "cart", "ü-🚀", "a")] == [14, 55, 9, 3]


def test_service_of_a_heartbeat_has_no_shard() -> None:
    table = SeriesTable(8)
    codes = table.codes([Event(timestamp_ms=START_MS, heartbeat=True), *events([("a", "/")])])
    assert table.places().shard[codes].tolist() == [-1, shard_of("a", 8)]


@given(st.lists(st.lists(st.tuples(NAMES, st.integers(-3, 3)), min_size=1, max_size=15), max_size=10))
def test_every_series_is_told_for_every_pane_it_was_seen_in(batches: list[list[tuple[tuple[str, str], int]]]) -> None:
    table = SeriesTable(8)
    told: dict[int, set[tuple[str, str]]] = defaultdict(set)
    seen: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for batch in batches:
        names, panes = [name for name, _ in batch], [pane + 176_390_000 for _, pane in batch]
        sightings = table.untold(table.codes(events(names)), np.array(panes, np.int64))
        for name, pane in zip(names, panes, strict=True):
            seen[pane].add(name)
        if sightings is not None:
            pairs = list(zip(sightings.panes, sightings.series, strict=True))
            assert len(pairs) == len(set(pairs))
            for pane, name in pairs:
                told[pane].add(name)
    assert told == seen


def test_series_that_goes_on_in_its_pane_is_told_once() -> None:
    table = SeriesTable(8)
    codes, panes = table.codes(events([("a", "/")] * 3)), np.full(3, 7, np.int64)
    assert table.untold(codes, panes) is not None
    assert table.untold(codes, panes) is None
    assert table.untold(codes, panes + 1) is not None


@pytest.mark.parametrize("shards", [1, 64, 4096])
def test_services_spread_over_all_shards(shards: int) -> None:
    used = {shard_of(f"service-{number}", shards) for number in range(20 * shards)}
    assert len(used) == shards

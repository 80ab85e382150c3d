"""The bridge's counters and histograms against an exact oracle, and the laws that make them a function of the log."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.kernels.buckets import OFFSET, bucket_of
from operators.kernels.closing import OVERFLOW_ENDPOINT
from operators.kernels.resolution import CLASSIC_BOUNDS_S, FINEST_SCHEMA, coarser
from operators.kernels.tallies import MAX_BUCKETS
from tests.dirty_log import START_MS, Log, dirty_log, event
from tests.kernels.tally_world import KAFKA_MS, RULES, TallyWorld, samples_of
from tests.tally_oracle import TallyOracle

PANE_MS = RULES.slide_ms


def traced(at_ms: int, latency_ms: float, trace_id: object, service: str = "a") -> bytes:
    return json.dumps(
        {"timestamp_ms": at_ms, "service": service, "endpoint": "/", "latency_ms": latency_ms, "trace_id": trace_id}
    ).encode()


def oracle_of(log: Log) -> TallyOracle:
    oracle = TallyOracle()
    for partition, values in enumerate(log):
        for offset, value in enumerate(values):
            oracle.record(partition, offset, value, KAFKA_MS)
    return oracle


def traced_log(seed: int) -> Log:
    rng = random.Random(seed)
    log = dirty_log(seed, partitions=3, records=1500, span_ms=200_000)
    for values in log:
        for number in range(0, len(values), 3):
            at_ms = START_MS + number * 400
            name = rng.choice([None, 7, "", "x" * 121, *(f"trace-{rng.randrange(1000)}" for _ in range(9))])
            values[number] = traced(at_ms, rng.choice([1, 2, 5, 5, 5]), name, rng.choice("ab"))
    return log


def test_tallies_of_a_dirty_log_equal_the_oracle_at_the_end_of_every_pane() -> None:
    log = dirty_log(3, partitions=3, records=3000, span_ms=300_000)
    oracle, world = oracle_of(log), TallyWorld(3).run(log)
    samples = world.samples()
    ends = sorted({key[0] for key in samples})
    assert len(ends) > 30
    for end in ends:
        codes = {(*key[1], key[3]): value[0] for key, value in samples.items() if key[0] == end and key[2] == "code"}
        assert codes == oracle.codes(end)
        sums, classic = oracle.sums_us(end), oracle.classic(end)
        for series, cumulative in classic.items():
            assert samples[end, series, "classic"] == cumulative
            assert samples[end, series, "count"] == cumulative[-1] == sum(samples[end, series, "native counts"])
            assert samples[end, series, "sum"] == pytest.approx(sums[series] / 1e6, rel=1e-12)
    assert world.vitals.events["accepted"] == len(oracle.requests) == sum(codes.values())
    assert world.vitals.events["late"] == oracle.late > 0


@given(seed=st.integers(0, 10**6))
@settings(max_examples=12)
def test_tallies_do_not_depend_on_batches_interleaving_processes_and_resumes(seed: int) -> None:
    log = traced_log(5)
    assert TallyWorld(3).run(log, seed).samples() == TallyWorld(3).run(log).samples()


@given(seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=20)
def test_a_frame_of_many_reads_counts_as_the_reads_do(seed: int, data: st.DataObject) -> None:
    values = traced_log(seed)[0][:200]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    whole, cut = TallyWorld(1), TallyWorld(1)
    whole.feed(0, values)
    cut.feed(0, values, *cuts)
    whole.end()
    cut.end()
    assert cut.samples() == whole.samples()


def test_exemplar_is_the_slowest_traced_request_of_the_pane_and_of_equals_the_earliest() -> None:
    log = traced_log(11)
    oracle, samples = oracle_of(log), TallyWorld(3).run(log, 4).samples()
    best: dict[tuple[int, tuple[str, str]], tuple[int, int, str]] = {}
    for one in oracle.requests:
        if isinstance(one.trace_id, str) and 0 < len(one.trace_id) <= 120:
            key = ((one.timestamp_ms // PANE_MS + 1) * PANE_MS, (one.service, one.endpoint))
            found = (-one.latency_us, one.timestamp_ms, one.trace_id)
            best[key] = min(found, best.get(key, found))
    told = {key[:2]: value for key, value in samples.items() if key[2] == "exemplar"}
    assert told == {key: (-latency, at, name) for key, (latency, at, name) in best.items()}
    assert len(told) > 10


def test_event_behind_a_closed_pane_is_late_and_in_no_tally() -> None:
    world = TallyWorld(2)
    world.feed(0, [event(START_MS, "a")])
    world.mark([1], "idle")
    world.feed(0, [event(START_MS + 60_000, "a")])
    world.feed(1, [event(START_MS, "a"), event(START_MS + 60_000, "a")])
    world.end()
    assert world.vitals.events["accepted"] == 3
    assert world.vitals.events["late"] == 1
    assert [int(frame.count.sum()) for frame in world.frames if frame.service][-1] == 3


def test_silent_series_ends_with_its_codes_and_begins_anew_at_zero() -> None:
    world = TallyWorld(1, replace(RULES, series_ttl_ms=30_000))
    first = START_MS // PANE_MS * PANE_MS
    for at, service, status in ((0, "a", 200), (0, "a", 500), (0, "b", 200), (40_000, "b", 200), (90_000, "a", 200)):
        world.feed(0, [event(first + at, service, status=status)])
    world.end()
    samples = world.samples()
    assert samples[first + 50_000, ("a", "/"), "ended"] == (200, 500)
    assert (first + 50_000, ("a", "/"), "count") not in samples
    assert samples[first + 40_000, ("a", "/"), "count"] == 2
    assert samples[first + 100_000, ("a", "/"), "count"] == 1
    assert samples[first + 100_000, ("a", "/"), "started"] == first + 90_000
    assert samples[first + 100_000, ("a", "/"), "code", 200] == (1, first + 90_000)


@pytest.mark.parametrize("seed", [1, 2])
def test_series_that_come_and_go_without_end_are_counted_right_while_their_places_are_used_again(seed: int) -> None:
    rng = random.Random(seed)
    log: Log = [[], []]
    for pane in range(40):
        for number in range(60):
            at_ms = START_MS + pane * PANE_MS + rng.randrange(PANE_MS)
            log[number % 2].append(
                traced(at_ms, rng.random(), f"t{number}", f"s{pane + rng.randrange(2)}-{number % 30}")
            )
    oracle = oracle_of(log)
    world = TallyWorld(2, replace(RULES, series_ttl_ms=30_000)).run(log, seed)
    samples = world.samples()
    ends = {key[0] for key in samples}
    codes, classic = {end: oracle.codes(end) for end in ends}, {end: oracle.classic(end) for end in ends}
    told = 0
    for key, value in samples.items():
        if key[2] == "code":
            assert value[0] == codes[key[0]][(*key[1], key[3])]
            told += 1
        elif key[2] == "classic":
            assert value == classic[key[0]][key[1]]
    assert told > 3000
    assert max(len(shard._panes.names) for shard in world.shards) < 200


def test_series_without_a_place_are_counted_in_overflow() -> None:
    world = TallyWorld(1, replace(RULES, max_series=2))
    for at in (0, 10_000, 20_000):
        world.feed(0, [traced(START_MS + at, 5, f"t{name}", name) for name in "abcd"])
    world.end()
    last = {
        name: int(count)
        for frame in world.frames
        for name, count in zip(zip(frame.service, frame.endpoint, strict=True), frame.count, strict=True)
    }
    assert last == {("a", "/"): 3, ("b", "/"): 3, ("c", OVERFLOW_ENDPOINT): 3, ("d", OVERFLOW_ENDPOINT): 3}
    assert {key[1] for key in world.samples()} == set(last)


def test_crowded_series_gets_coarser_buckets_and_loses_no_count() -> None:
    world = TallyWorld(1)
    latencies = [1.02**number for number in range(900)]
    world.feed(0, [event(START_MS + number, latency_ms=latency) for number, latency in enumerate(latencies)])
    world.feed(0, [event(START_MS + 20_000, service="b")])
    world.end()
    oracle = TallyOracle()
    for number, latency in enumerate(latencies):
        oracle.record(0, number, event(START_MS + number, latency_ms=latency), KAFKA_MS)
    samples = {key[2:]: value for frame in world.frames for key, value in samples_of(frame) if key[1] == ("a", "/")}
    schema, *codes = samples["native",]
    assert schema < FINEST_SCHEMA
    assert MAX_BUCKETS / 2 < len(codes) <= MAX_BUCKETS
    assert samples["classic",] == oracle.classic()["a", "/"]


@given(
    st.lists(st.integers(0, 10**15), min_size=1, max_size=50),
    st.integers(0, FINEST_SCHEMA),
)
def test_coarser_bucket_holds_what_its_parts_held(latencies_us: list[int], schema: int) -> None:
    values = np.array(latencies_us, np.int64)
    codes = coarser(bucket_of(values), FINEST_SCHEMA - schema)
    for latency_us, code in zip(latencies_us, codes.tolist(), strict=True):
        upper_s = 2.0 ** ((code - OFFSET) / 2**schema)
        lower_s = 2.0 ** ((code - OFFSET - 1) / 2**schema)
        assert (code == 0) == (latency_us == 0)
        assert code == 0 or lower_s * (1 - 1e-12) < latency_us / 1e6 <= upper_s * (1 + 1e-12)


def test_classic_bounds_are_those_that_are_documented() -> None:
    guide: dict[str, Any] = {
        "first": CLASSIC_BOUNDS_S[0],
        "last": CLASSIC_BOUNDS_S[-1],
        "number": len(CLASSIC_BOUNDS_S),
    }
    assert guide == {"first": 2**-10, "last": 64.0, "number": 17}
    assert {later / earlier for earlier, later in pairwise(CLASSIC_BOUNDS_S)} == {2.0}

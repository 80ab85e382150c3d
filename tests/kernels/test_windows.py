"""Windows against an exact oracle, and the laws that make them the same however the log is cut up."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.kernels.census import Census
from operators.kernels.closing import OVERFLOW_ENDPOINT
from operators.kernels.decode import EventDecoder
from operators.kernels.intake import NO_TIME_MS, IntakeRules, take
from operators.kernels.series import SeriesTable
from operators.kernels.sharding import split_by_shard
from operators.kernels.watermarks import ACTIVE, ENDED, IDLE, Mark, Marks, Watermarks
from operators.kernels.window_rules import WindowRules
from operators.kernels.windows import Windows
from tests.dirty_log import START_MS, Log, dirty_log, event
from tests.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from operators.kernels.frames import WindowFrame

SHARDS = 4


class Pipeline:
    """Source, shards and windows without Bytewax, driven by hand."""

    def __init__(self, partitions: int, rules: WindowRules, lateness_ms: int = 5_000) -> None:
        self.rules = rules
        self.intake = IntakeRules(rules.slide_ms, lateness_ms, 60_000)
        self.decoder = EventDecoder(max_bytes=1_048_576)
        self.table = SeriesTable(SHARDS)
        self.partitions = partitions
        self.tops = [NO_TIME_MS] * partitions
        self.windows = [Windows(rules) for _ in range(SHARDS)]
        self.marks = [Watermarks(slide_ms=rules.slide_ms, panes_in_window=rules.panes_in_window) for _ in range(SHARDS)]
        self.census = Census(rules, SHARDS)
        self.rows: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.late = 0
        self.dead = 0
        for partition in range(partitions):
            self.mark(partition)

    def feed(self, partition: int, values: Sequence[bytes | None]) -> None:
        kafka_ms = [START_MS + 3_600_000] * len(values)
        got = take(values, kafka_ms, self.tops[partition], rules=self.intake, table=self.table, decoder=self.decoder)
        self.tops[partition] = got.top_ms
        self.late += got.late
        self.dead += len(got.rejects)
        sightings = self.table.untold(got.columns.code, got.columns.pane)
        if sightings is not None:
            self.census.add(sightings)
        for shard, rows in split_by_shard(got.columns, self.table.places()):
            _, late = self.windows[shard].add(rows)
            self.late += late
        self.mark(partition)

    def mark(self, partition: int, mode: str = ACTIVE) -> None:
        top_ms = self.tops[partition]
        mark = Mark(partition, self.intake.frontier(top_ms), top_ms, mode)
        for shard in range(SHARDS):
            self.marks[shard].apply(Marks(partition, self.partitions, (mark,)))
        complete = self.marks[0].complete()
        if complete is None:
            return
        for shard, verdict in enumerate(self.census.advance(complete)):
            self.windows[shard].fold(verdict.folded)
        for windows in self.windows:
            self.collect(windows.advance(complete))

    def collect(self, frames: list[WindowFrame]) -> None:
        for frame in frames:
            for number, series in enumerate(zip(frame.service, frame.endpoint, strict=True)):
                row = {
                    "count": int(frame.count[number]),
                    "errors": int(frame.errors[number]),
                    "sum_us": int(frame.sum_us[number]),
                    "max_us": int(frame.max_us[number]),
                    "quantiles": (frame.p50_us[number], frame.p90_us[number], frame.p99_us[number]),
                }
                assert (*series, frame.window_end_ms) not in self.rows
                self.rows[(*series, frame.window_end_ms)] = row

    def resume(self) -> None:
        self.windows = [Windows.from_bytes(self.rules, windows.to_bytes()) for windows in self.windows]
        self.census = Census.from_bytes(self.rules, SHARDS, self.census.to_bytes())
        self.table = SeriesTable(SHARDS)

    def end(self) -> None:
        for partition in range(self.partitions):
            self.mark(partition, ENDED)


def assert_equals_oracle(rows: dict[tuple[str, str, int], dict[str, Any]], oracle: Oracle) -> None:
    expected = oracle.windows()
    assert set(rows) == set(expected)
    for key, row in rows.items():
        want = expected[key]
        assert (row["count"], row["errors"]) == (want["count"], want["errors"]), key
        if not row["count"]:
            assert np.isnan(row["quantiles"]).all()
            continue
        assert row["sum_us"] / row["count"] / 1000 == pytest.approx(want["mean_ms"], abs=1e-6)
        assert row["max_us"] / 1000 == want["max_ms"]
        for got_us, name in zip(row["quantiles"], ("p50_ms", "p90_ms", "p99_ms"), strict=True):
            assert got_us / 1000 == pytest.approx(want[name], rel=0.01), (key, name)


def batches(log: Log, seed: int, largest: int) -> Iterator[tuple[int, list[bytes | None]]]:
    rng = random.Random(seed)
    left = [list(values) for values in log]
    while any(left):
        partition = rng.choice([number for number, values in enumerate(left) if values])
        size = rng.randint(1, largest)
        yield partition, left[partition][:size]
        left[partition] = left[partition][size:]


def run(
    log: Log, rules: WindowRules, *, seed: int, largest: int, after: Callable[[Pipeline], None] | None = None
) -> Pipeline:
    pipeline = Pipeline(len(log), rules)
    for partition, values in batches(log, seed, largest):
        pipeline.feed(partition, values)
        if after is not None:
            after(pipeline)
    pipeline.end()
    return pipeline


def read_by_oracle(log: Log, rules: WindowRules) -> Oracle:
    oracle = Oracle(length_ms=rules.length_ms, slide_ms=rules.slide_ms, ttl_ms=rules.series_ttl_ms)
    for partition, values in enumerate(log):
        for offset, value in enumerate(values):
            oracle.record(partition, offset, value, START_MS + 3_600_000)
    return oracle


RULES = WindowRules(60_000, 10_000, 600_000, 100_000)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "rules", [RULES, WindowRules(30_000, 1_000, 45_000, 100), WindowRules(10_000, 10_000, 20_000, 100)]
)
def test_windows_of_a_dirty_log_equal_the_oracle(seed: int, rules: WindowRules) -> None:
    log = dirty_log(seed, partitions=3, records=1500, span_ms=400_000)
    oracle = read_by_oracle(log, rules)
    pipeline = run(log, rules, seed=seed, largest=200)
    assert_equals_oracle(pipeline.rows, oracle)
    assert (pipeline.late, pipeline.dead) == (oracle.late, len(oracle.dead))


@given(seed=st.integers(0, 10**6), largest=st.sampled_from([1, 7, 50, 5000]), resumed=st.booleans())
@settings(max_examples=25)
def test_windows_do_not_depend_on_batches_interleaving_or_resumption(seed: int, largest: int, *, resumed: bool) -> None:
    log = dirty_log(seed % 5, partitions=3, records=400, span_ms=200_000)
    rng = random.Random(seed)

    def sometimes_resume(pipeline: Pipeline) -> None:
        if resumed and rng.random() < 0.2:
            pipeline.resume()

    one = run(log, RULES, seed=0, largest=10_000)
    other = run(log, RULES, seed=seed, largest=largest, after=sometimes_resume)
    assert {key: str(row) for key, row in one.rows.items()} == {key: str(row) for key, row in other.rows.items()}


def test_silent_series_keeps_its_windows_until_its_time_to_live_has_passed() -> None:
    pipeline = Pipeline(1, WindowRules(60_000, 10_000, 120_000, 100))
    pipeline.feed(0, [event(START_MS, "quiet"), *(event(START_MS + at, "busy") for at in range(0, 400_000, 5_000))])
    pipeline.end()
    ends = sorted(end for service, _, end in pipeline.rows if service == "quiet")
    pane_end = START_MS // 10_000 * 10_000 + 10_000
    assert ends == list(range(pane_end, pane_end + 120_000 + 1, 10_000))
    assert pipeline.rows["quiet", "/", ends[-1]]["count"] == 0


def test_series_that_returns_after_its_time_to_live_starts_anew() -> None:
    windows = Windows(WindowRules(20_000, 10_000, 20_000, 100))
    carries = []
    for at in (0, 10_000, 500_000):
        table = SeriesTable(1)
        got = take(
            [event(START_MS + at), event(START_MS + at, "b") if at < 400_000 else event(START_MS + at)],
            [START_MS + at] * 2,
            NO_TIME_MS,
            rules=IntakeRules(10_000, 0, 60_000),
            table=table,
            decoder=EventDecoder(max_bytes=1000),
        )
        for _, rows in split_by_shard(got.columns, table.places()):
            windows.add(rows)
        carries += [frame.carry for frame in windows.advance((START_MS + at) // 10_000 + 1)]
    assert carries[0] is not None
    assert carries[0].tolist() == [-1, -1]
    assert carries[1] is None
    assert carries[-2] is not None
    assert not len(carries[-2])
    assert carries[-1] is not None
    assert carries[-1].tolist() == [-1]


def test_window_closes_when_every_partition_passed_its_end() -> None:
    pipeline = Pipeline(2, RULES)
    pipeline.feed(0, [event(START_MS), event(START_MS + 300_000)])
    assert not pipeline.rows
    pipeline.feed(1, [event(START_MS + 20_000, "b"), event(START_MS + 40_000, "b")])
    assert {end - START_MS for service, _, end in pipeline.rows if service == "a"} == {10_000, 20_000, 30_000}


def test_idle_partition_holds_nothing_back_and_what_it_brings_for_closed_windows_is_late() -> None:
    pipeline = Pipeline(2, RULES)
    pipeline.mark(1, IDLE)
    pipeline.feed(0, [event(START_MS), event(START_MS + 100_000)])
    closed = len(pipeline.rows)
    assert closed > 0
    pipeline.feed(1, [event(START_MS, "b")])
    assert pipeline.late == 1
    assert all(service == "a" for service, _, _ in pipeline.rows)


def test_last_pane_is_emitted_when_all_partitions_are_idle_and_the_next_event_still_counts() -> None:
    pipeline = Pipeline(1, RULES)
    pipeline.feed(0, [event(START_MS)])
    assert not pipeline.rows
    pipeline.mark(0, IDLE)
    assert [end for _, _, end in pipeline.rows] == [START_MS + 10_000]
    pipeline.feed(0, [event(START_MS + 30_000)])
    pipeline.end()
    assert pipeline.late == 0
    assert pipeline.rows["a", "/", START_MS + 60_000]["count"] == 2


@given(seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_series_past_the_limit_fold_into_overflow_and_no_request_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    services = ["a", "b", "c", "d", "e"]
    values = [event(START_MS + number * 100, rng.choice(services), f"/{rng.randrange(10)}") for number in range(600)]
    rules = WindowRules(60_000, 10_000, 600_000, 10)
    whole, cut = run([values], rules, seed=0, largest=1000), run([values], rules, seed=seed, largest=20)
    assert {key: str(row) for key, row in whole.rows.items()} == {key: str(row) for key, row in cut.rows.items()}
    own = {key[:2] for key in whole.rows if key[1] != OVERFLOW_ENDPOINT}
    assert len(own) == 10
    end = START_MS + 60_000
    assert sum(row["count"] for key, row in whole.rows.items() if key[2] == end) == 600
    assert {key[0] for key in whole.rows if key[1] == OVERFLOW_ENDPOINT} >= {"c", "d", "e"}


def test_churn_of_series_leaves_no_slots_behind() -> None:
    pipeline = Pipeline(1, WindowRules(20_000, 10_000, 20_000, 100_000))
    for number in range(60):
        at = START_MS + number * 10_000
        pipeline.feed(0, [event(at + i, "a", f"/{number}/{i}") for i in range(50)])
    assert max(len(windows.names) for windows in pipeline.windows) < 1000
    pipeline.end()
    assert len(pipeline.rows) >= 60 * 50

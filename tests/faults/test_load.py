"""More than there should be: ten times the rate, and series without end. Counts stay exact and memory stays bounded."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.dirty_log import START_MS
from tests.faults.conftest import SEED
from tests.faults.story import (
    KAFKA_MS,
    NEVER_MS,
    Beat,
    Feeder,
    assert_told_by_the_oracle,
    oracle_of,
    outcome_in,
    settings_of,
    story,
    wait_for_windows,
    write,
)
from tests.faults.supervision import PACE_S, stop_cleanly
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import LogRecord, NewRecord, wait_for_records

if TYPE_CHECKING:
    from tests.conftest import KafkaCluster, Topics

MIB = 1024 * 1024
SURGE = range(20, 50)
PREFETCH_BYTES = 32 * MIB
"""What the consumers may fetch ahead: the only thing that may grow with the rate."""

PANE_MS = 10_000
PANES_A_MINUTE = 60_000 // PANE_MS
SERVICES = 20
ITEMS_IN_RECORD = 250
MAX_SERIES = 2_000
CHURN_GROWTH_BYTES = 64 * MIB
CAUGHT_UP_S = 600.0


def peak_bytes(flow: FlowProcess) -> int:
    """Most memory that a flow of one process has used so far."""
    status = Path(f"/proc/{flow.running[0].pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def test_ten_times_the_rate_changes_no_count_and_needs_no_more_than_the_prefetch(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    told = story(SEED, beats=SURGE.stop, surge=SURGE, times=10)
    oracle = oracle_of(told.by_partition())
    feeder = Feeder(kafka, topics.events, told.beats, pace_s=PACE_S)
    feeder.hold_at = SURGE.start
    flow = FlowProcess(settings_of(kafka, topics), tmp_path / "recovery").start()
    feeder.start()
    feeder.wait_for(SURGE.start)
    wait_for_windows(kafka, topics, 50)
    before = peak_bytes(flow)
    feeder.finish()
    wait_for_windows(kafka, topics, sum(end_ms <= told.closed_ms for *_, end_ms in oracle.windows()))
    after = peak_bytes(flow)
    stop_cleanly(flow)
    assert_told_by_the_oracle(outcome_in(kafka, topics), oracle, told.closed_ms)
    assert after < before + PREFETCH_BYTES


class Churn:
    """Series that are seen once, so many new ones in each pane, and now and then one event of a series that stays."""

    def __init__(self, seed: int, new_per_minute: int) -> None:
        self._rng = random.Random(seed)
        self._new_per_pane = new_per_minute // PANES_A_MINUTE
        self.counts: Counter[tuple[str, int]] = Counter()
        self._number = 0

    def panes(self, panes: range) -> Beat:
        """Make the records of some panes, and count their events by service and window end."""
        return [record for pane in panes for record in self._pane(pane)]

    def _pane(self, pane: int) -> Beat:
        start_ms = START_MS + pane * PANE_MS
        items = [self._item(start_ms) for _ in range(self._new_per_pane)]
        return [
            NewRecord(
                json.dumps(items[first : first + ITEMS_IN_RECORD]).encode(), b"k", number % 4, timestamp_ms=KAFKA_MS
            )
            for number, first in enumerate(range(0, len(items), ITEMS_IN_RECORD))
        ]

    def _item(self, start_ms: int) -> dict[str, object]:
        self._number += 1
        service = f"s{self._rng.randrange(SERVICES)}"
        self.counts[service, start_ms + PANE_MS] += 1
        at_ms = start_ms + self._rng.randrange(PANE_MS)
        return {"timestamp_ms": at_ms, "service": service, "endpoint": f"/{self._number}", "latency_ms": 5}

    def end(self, panes: int) -> Beat:
        """Make heartbeats that close all panes."""
        value = json.dumps({"timestamp_ms": START_MS + (panes + 1) * PANE_MS, "heartbeat": True}).encode()
        return [NewRecord(value, b"k", partition, timestamp_ms=KAFKA_MS) for partition in range(4)]


def counts_in(records: list[LogRecord]) -> Counter[tuple[str, int]]:
    """Add up the windows by service and end."""
    counts: Counter[tuple[str, int]] = Counter()
    for record in records:
        row = json.loads(record.value or b"")
        counts[row["service"], row["window_end_ms"]] += row["count"]
    return counts


def wait_until_accepted(flow: FlowProcess, events: int) -> None:
    """Wait until the page says that so many events are in windows."""
    deadline = time.monotonic() + CAUGHT_UP_S
    page = f"http://127.0.0.1:{flow.env['TAILMARK_PROMETHEUS__PORT']}/metrics"
    while time.monotonic() < deadline:
        with urlopen(page, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        accepted = [line for line in lines if line.startswith("tailmark_events_total{") and '"accepted"' in line]
        if float(accepted[0].split()[-1]) >= events:
            return
        time.sleep(0.5)
    pytest.fail(f"the flow did not take {events} events in")


def assert_churn_is_bounded(
    kafka: KafkaCluster, topics: Topics, recovery: Path, *, new_per_minute: int, minutes: int
) -> None:
    """Write new series by the minute, and compare the peak of memory after half of them with that after all of them."""
    churn, panes = Churn(SEED, new_per_minute), minutes * PANES_A_MINUTE
    settings = {
        "WINDOW__LENGTH_MS": str(PANE_MS),
        "WINDOW__SLIDE_MS": str(PANE_MS),
        "WINDOW__SERIES_TTL_MS": str(PANE_MS),
        "WINDOW__MAX_SERIES": str(MAX_SERIES),
        "WINDOW__IDLE_AFTER_MS": str(NEVER_MS),
    }
    flow = FlowProcess(settings_for(kafka, topics, **settings), recovery).start().serving()
    write(kafka, topics, [churn.panes(range(panes // 2))])
    wait_until_accepted(flow, churn.counts.total())
    half = peak_bytes(flow)
    write(kafka, topics, [churn.panes(range(panes // 2, panes)), churn.end(panes)])
    total = churn.counts.total()
    records = wait_for_records(
        kafka.client_options,
        topics.windows,
        lambda found: counts_in(found).total() >= total,
        timeout_s=CAUGHT_UP_S,
    )
    all_of_it = peak_bytes(flow)
    stop_cleanly(flow)
    rows = [json.loads(record.value or b"") for record in records]
    live = Counter(row["window_end_ms"] for row in rows if row["count"] and row["endpoint"] != "__overflow__")
    assert +counts_in(records) == churn.counts
    assert max(live.values()) <= MAX_SERIES
    assert any(row["endpoint"] == "__overflow__" for row in rows)
    assert all_of_it < half + CHURN_GROWTH_BYTES


def test_new_series_without_end_fold_into_overflow_and_memory_stays_bounded(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    assert_churn_is_bounded(kafka, topics, tmp_path / "recovery", new_per_minute=15_000, minutes=2)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_hundred_thousand_new_series_a_minute_fold_into_overflow_and_memory_stays_bounded(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    assert_churn_is_bounded(kafka, topics, tmp_path / "recovery", new_per_minute=100_000, minutes=20)

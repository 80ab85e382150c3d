"""Disturbances: each at its rate, each what it says, none of them changing the world."""

import json
from typing import Any

import numpy as np
import pytest

from simulator.disorder import FAULTS, ITEM_FAULTS, NONE, Disturbances, disturb
from simulator.requests import Requests, draw
from simulator.stream import record
from simulator.world import shop
from tests.simulator.recording import PARTITIONS, START_MS, contents, plan, values

GOOD = (
    b'{"timestamp_ms":1767225600000,"service":"cart","endpoint":"/cart","method":"GET","latency_ms":9.25,'
    b'"status":200,"trace_id":"00ff","region":"eu","host":"node-1"}'
)


def requests(count: int = 100_000) -> Requests:
    rng = np.random.default_rng(1)
    return draw(shop(count / 10), [], START_MS, START_MS + 10_000, rng)


def only(**shares: Any) -> Disturbances:
    none = {name: getattr(NONE, name) for name in NONE.__slots__}
    return Disturbances(**{**none, **shares})


def test_nothing_is_disturbed_without_shares() -> None:
    drawn = requests()
    disturbed = disturb(drawn, NONE, np.random.default_rng(2))
    for name, column in drawn.columns().items():
        assert np.array_equal(column, disturbed.columns()[name]), name


def test_disorder_delays_its_share_within_its_limit() -> None:
    disturbed = disturb(requests(), only(disorder_ratio=0.2, disorder_ms=2000), np.random.default_rng(2))
    delay_ms = disturbed.arrival_ms - disturbed.timestamp_ms
    assert (delay_ms > 0).mean() == pytest.approx(0.2, rel=0.05)
    assert 1900 < delay_ms.max() <= 2000
    assert not disturbed.late.any()


def test_late_events_come_at_their_share_and_late_enough() -> None:
    disturbed = disturb(requests(), only(late_ratio=0.02, late_ms=15_000), np.random.default_rng(2))
    delay_ms = disturbed.arrival_ms - disturbed.timestamp_ms
    assert disturbed.late.mean() == pytest.approx(0.02, rel=0.15)
    assert delay_ms[disturbed.late].min() >= 15_000
    assert delay_ms[~disturbed.late].max() == 0


def test_duplicates_come_at_their_share_and_repeat_a_good_event() -> None:
    drawn = requests()
    disturbed = disturb(drawn, only(duplicate_ratio=0.05), np.random.default_rng(2))
    copies = disturbed.take(disturbed.copy)
    assert len(copies) / len(drawn) == pytest.approx(0.05, rel=0.1)
    assert np.isin(copies.trace, drawn.trace).all()
    assert (copies.arrival_ms >= copies.timestamp_ms).all()


def test_duplicates_are_the_same_bytes() -> None:
    sent = values(record(plan(disturbances=only(duplicate_ratio=0.05), event_ids=True), PARTITIONS))
    repeated = len(sent) - len(set(sent))
    assert repeated / len(sent) == pytest.approx(0.05, rel=0.25)


def test_clock_skew_moves_stamps_both_ways_at_its_share() -> None:
    drawn = requests()
    disturbed = disturb(drawn, only(skew_ratio=0.1, skew_ms=1000), np.random.default_rng(2))
    moved_ms = disturbed.timestamp_ms - drawn.timestamp_ms
    assert (moved_ms != 0).mean() == pytest.approx(0.1, rel=0.1)
    assert moved_ms.min() < -900
    assert moved_ms.max() > 900
    assert np.array_equal(disturbed.arrival_ms, drawn.arrival_ms)


def test_malformed_events_come_beside_the_good_ones_at_their_share() -> None:
    drawn = requests()
    disturbed = disturb(drawn, only(malformed_ratio=0.1), np.random.default_rng(2))
    assert np.count_nonzero(disturbed.fault) / len(drawn) == pytest.approx(0.1, rel=0.05)
    assert np.count_nonzero(disturbed.fault == 0) == len(drawn)
    assert set(np.unique(disturbed.fault)) == set(range(len(FAULTS) + 1))


def test_dirt_leaves_the_good_events_as_they_are() -> None:
    dirty = only(malformed_ratio=0.2, duplicate_ratio=0.1, disorder_ratio=0.3, late_ratio=0.01)
    clean = sorted(values(record(plan(), PARTITIONS)))
    disturbed = set(values(record(plan(disturbances=dirty), PARTITIONS)))
    assert disturbed.issuperset(clean)


def test_contents_count_what_is_in_the_records() -> None:
    dirty = Disturbances(malformed_ratio=0.1, duplicate_ratio=0.05, late_ratio=0.02)
    clean = len(values(record(plan(), PARTITIONS)))
    sent = list(record(plan(disturbances=dirty, heartbeat_ms=1000), PARTITIONS))
    counted = contents(sent)
    assert counted["events"] == clean
    assert counted["heartbeats"] == 60 * PARTITIONS
    assert counted["malformed"] / clean == pytest.approx(0.1, rel=0.1)
    assert counted["late"] / clean == pytest.approx(0.02, rel=0.3)
    assert len(values(sent)) == sum(counted.values()) - counted["late"]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_breaks_a_rule_of_the_contract(fault: object) -> None:
    assert callable(fault)
    broken = fault(GOOD)
    assert broken != GOOD
    try:
        event = json.loads(broken)
    except ValueError:
        assert FAULTS.index(fault) >= ITEM_FAULTS
        return
    assert FAULTS.index(fault) < ITEM_FAULTS
    acceptable = (
        isinstance(event.get("timestamp_ms"), int)
        and 946_684_800_000 <= event["timestamp_ms"] <= 1_767_225_600_000 + 60_000
        and isinstance(event.get("service"), str)
        and 1 <= len(event["service"]) <= 128
        and isinstance(event["latency_ms"], int | float)
        and event["latency_ms"] >= 0
        and 100 <= event["status"] <= 599
    )
    assert not acceptable


@pytest.mark.parametrize("field", ["disorder_ratio", "late_ratio", "duplicate_ratio", "malformed_ratio", "skew_ratio"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_share_outside_of_zero_to_one_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{field}` must be in"):
        only(**{field: value})


def test_negative_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="`disorder_ms` must not be negative"):
        Disturbances(disorder_ms=-1)

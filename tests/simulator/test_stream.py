"""The recording as a whole: a function of its plan, in order, with heartbeats and truth."""

import json
from itertools import islice
from typing import Any

import pytest

from simulator.disorder import Disturbances
from simulator.encode import partition_of
from simulator.stream import Plan, record
from tests.simulator.recording import (
    MINUTE_MS,
    PARTITIONS,
    START_MS,
    contents,
    events,
    items,
    plan,
    record_events,
    rows,
    values,
)

DIRTY = Disturbances(disorder_ratio=0.2, late_ratio=0.01, duplicate_ratio=0.02, malformed_ratio=0.02, skew_ratio=0.02)


@pytest.mark.parametrize("encoding", ["single", "array", "ndjson", "mixed"])
def test_same_plan_gives_the_same_records_in_the_same_order(encoding: str) -> None:
    usual: dict[str, Any] = {"scenario": "demo", "disturbances": DIRTY, "heartbeat_ms": 1000, "encoding": encoding}
    usual["duration_ms"] = 8 * MINUTE_MS
    first = list(rows(record(plan(**usual), PARTITIONS)))
    assert first == list(rows(record(plan(**usual), PARTITIONS)))
    assert first != list(rows(record(plan(**usual, seed=8), PARTITIONS)))


def test_longer_recording_begins_like_the_shorter_one() -> None:
    shorter = values(record(plan(duration_ms=50_000), PARTITIONS))
    longer = values(record(plan(duration_ms=100_000), PARTITIONS))
    assert longer[: len(shorter)] == shorter


def test_recording_without_end_begins_like_the_one_with_an_end() -> None:
    endless = islice(record(plan(duration_ms=None), PARTITIONS), 6)
    assert values(endless) == values(record(plan(), PARTITIONS))


@pytest.mark.parametrize("encoding", ["single", "array", "ndjson", "mixed"])
def test_arrival_never_falls_and_no_event_comes_before_it_happened(encoding: str) -> None:
    dirty = Disturbances(skew_ratio=0, malformed_ratio=0)
    sent = list(rows(record(plan(encoding=encoding, heartbeat_ms=1000, disturbances=dirty), PARTITIONS)))
    arrivals = [arrival_ms for _, arrival_ms, _, _ in sent]
    assert arrivals == sorted(arrivals)
    assert all(item["timestamp_ms"] <= arrival_ms for _, arrival_ms, _, value in sent for item in items(value))


def test_only_the_asked_share_is_out_of_order() -> None:
    stamps = record_events()["timestamp_ms"].to_list()
    assert stamps == sorted(stamps)
    disordered = events(record(plan(disturbances=Disturbances(malformed_ratio=0)), PARTITIONS))[
        "timestamp_ms"
    ].to_list()
    assert disordered != sorted(disordered)


@pytest.mark.parametrize("encoding", ["array", "ndjson", "mixed"])
def test_every_encoding_decodes_to_the_same_events(encoding: str) -> None:
    singles = record_events(rate_per_s=1000.0).sort("timestamp_ms", "trace_id")
    batched = record_events(rate_per_s=1000.0, encoding=encoding, batch_size=50).sort("timestamp_ms", "trace_id")
    assert singles.equals(batched)


@pytest.mark.parametrize("encoding", ["array", "ndjson"])
def test_batches_hold_one_service_and_no_more_than_asked(encoding: str) -> None:
    sizes = []
    for partition, _, key, value in rows(record(plan(rate_per_s=1000.0, encoding=encoding, batch_size=50), PARTITIONS)):
        batch = items(value)
        sizes.append(len(batch))
        assert key is not None
        assert {event["service"] for event in batch} == {key.decode()}
        assert partition == partition_of(key, PARTITIONS)
    assert max(sizes) == 50


def test_mixed_recording_has_every_encoding() -> None:
    sent = values(record(plan(rate_per_s=1000.0, encoding="mixed"), PARTITIONS))
    assert {value[:1] + value[-1:] for value in sent} == {b"{}", b"[]", b"{\n"}


def test_batch_waits_no_longer_than_the_linger() -> None:
    for _, arrival_ms, _, value in rows(record(plan(encoding="array", linger_ms=500), PARTITIONS)):
        assert arrival_ms - min(item["timestamp_ms"] for item in items(value)) < 500


def test_event_has_the_fields_of_the_contract_in_about_as_many_bytes_as_real_ones() -> None:
    sent = values(record(plan(), PARTITIONS))
    assert set(json.loads(sent[0])) == {
        "timestamp_ms", "service", "endpoint", "latency_ms", "status", "trace_id", "region", "host", "method"
    }  # fmt: skip
    assert 150 <= sum(map(len, sent)) / len(sent) <= 190


def test_event_ids_are_there_on_demand_and_differ() -> None:
    table = record_events(event_ids=True)
    assert table["event_id"].n_unique() == len(table)
    assert table.drop("event_id").equals(record_events())


def test_every_partition_gets_a_heartbeat_every_second() -> None:
    beats: dict[int, list[int]] = {}
    for partition, arrival_ms, key, value in rows(record(plan(heartbeat_ms=1000), 7)):
        event = json.loads(value)
        if event.get("heartbeat"):
            assert event == {"timestamp_ms": arrival_ms, "heartbeat": True}
            assert key is None
            beats.setdefault(partition, []).append(arrival_ms)
    assert set(beats) == set(range(7))
    assert all(times == list(range(START_MS, START_MS + MINUTE_MS, 1000)) for times in beats.values())


def test_heartbeats_leave_the_events_as_they_are() -> None:
    quiet = values(record(plan(), PARTITIONS))
    beating = values(record(plan(heartbeat_ms=700), PARTITIONS))
    assert [value for value in beating if b"heartbeat" not in value] == quiet


def test_late_events_of_the_end_are_not_lost() -> None:
    dirty = Disturbances(late_ratio=0.05, duplicate_ratio=0, malformed_ratio=0)
    counted = contents(record(plan(disturbances=dirty), PARTITIONS))
    assert counted["events"] == len(record_events())


def test_truth_comes_when_its_incident_begins_and_before_its_events() -> None:
    told = []
    reached_ms = START_MS
    for chunk in record(plan(scenario="demo", duration_ms=30 * MINUTE_MS), PARTITIONS):
        for key, value in zip(chunk.truth.keys, chunk.truth.values, strict=True):
            truth = json.loads(value)
            assert truth["start_ms"] == chunk.start_ms >= reached_ms
            assert key == truth["scenario_id"].encode()
            told.append(truth)
        if chunk.records.arrival_ms:
            assert chunk.records.arrival_ms[0] >= chunk.start_ms
            reached_ms = chunk.records.arrival_ms[-1]
    assert len(told) == 9
    assert len({truth["scenario_id"] for truth in told}) == 9
    assert [truth["kind"] for truth in told if not truth["page"]] == ["surge"]


def test_truth_of_an_incident_cut_by_the_end_ends_there() -> None:
    chunks = record(plan(scenario="demo", duration_ms=7 * MINUTE_MS), PARTITIONS)
    truths = [json.loads(value) for chunk in chunks for value in chunk.truth.values]
    assert [(truth["kind"], truth["end_ms"]) for truth in truths] == [("latency-step", START_MS + 7 * MINUTE_MS)]


def test_partitions_agree_with_the_default_of_librdkafka() -> None:
    # CRC-32 of "123456789" is the check value of the algorithm that librdkafka's default partitioner uses.
    assert partition_of(b"123456789", 1 << 32) == 0xCBF43926


@pytest.mark.parametrize("encoding", ["array", "mixed"])
def test_malformed_items_do_not_spoil_the_good_ones_beside_them(encoding: str) -> None:
    dirty = Disturbances(malformed_ratio=0.2, disorder_ratio=0, late_ratio=0, duplicate_ratio=0, skew_ratio=0)
    sent = values(record(plan(encoding=encoding, disturbances=dirty), PARTITIONS))
    traces = {item.get("trace_id") for value in sent for item in items(value)}
    assert traces >= set(record_events()["trace_id"])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"rate_per_s": 0.0}, "`rate` must be over 0"),
        ({"duration_ms": 0}, "`duration` must be over 0"),
        ({"seed": -1}, "must not be negative"),
        ({"heartbeat_ms": -1}, "must not be negative"),
    ],
)
def test_impossible_plan_is_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Plan(start_ms=0, **change)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"encoding": "xml"}, "`encoding` must be one of single, array, ndjson, mixed"),
        ({"batch_size": 0}, "`batch_size` and `linger_ms` must be at least 1"),
        ({"scenario": "storm"}, "`scenario` must be one of"),
        ({"services": 0}, "at least one service"),
    ],
)
def test_recording_of_something_that_does_not_exist_is_refused_before_it_begins(
    change: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        record(plan(**change), PARTITIONS)

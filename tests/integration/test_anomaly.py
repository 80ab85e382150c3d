"""The whole anomaly flow on a real Kafka, against the exact oracle."""

from __future__ import annotations

import json
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.dirty_log import START_MS, Log, dirty_log, event
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import LogRecord, NewRecord, produce, read_topic
from tests.oracle import Oracle

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics

KAFKA_MS = START_MS + 3_600_000
Rows = dict[tuple[str, str, int], dict[str, Any]]


def publish(kafka: KafkaCluster, topics: Topics, log: Log) -> Oracle:
    """Write a log to Kafka, with keys and headers, and read it by the oracle."""
    oracle = Oracle()
    records = []
    for partition, values in enumerate(log):
        for offset, value in enumerate(values):
            headers = (("trace", b"t%d" % offset),)
            records.append(NewRecord(value, b"k%d" % offset, partition, headers, timestamp_ms=KAFKA_MS))
            oracle.record(partition, offset, value, KAFKA_MS)
    produce(kafka.client_options, topics.events, records)
    return oracle


def windows_in(kafka: KafkaCluster, topics: Topics) -> Rows:
    """Read the windows topic; no window may be there twice."""
    rows: Rows = {}
    for record in read_topic(kafka.client_options, topics.windows):
        assert record.value is not None
        row = json.loads(record.value)
        key = (row["service"], row["endpoint"], row["window_end_ms"])
        assert key not in rows
        assert record.key == f"{row['service']}|{row['endpoint']}".encode()
        rows[key] = row
    return rows


def assert_equals_oracle(rows: Rows, oracle: Oracle) -> None:
    expected = oracle.windows()
    assert set(rows) == set(expected)
    for key, row in rows.items():
        want = expected[key]
        for name in ("count", "errors", "error_ratio", "max_ms"):
            assert row[name] == want[name], (key, name)
        assert row["mean_ms"] == (None if want["mean_ms"] is None else pytest.approx(want["mean_ms"], abs=1e-6)), key
        for name in ("p50_ms", "p90_ms", "p99_ms"):
            assert row[name] == (None if want[name] is None else pytest.approx(want[name], rel=0.01)), (key, name)


def assert_dead_letters(records: list[LogRecord], log: Log, oracle: Oracle, topic: str) -> None:
    seen = set()
    for record in records:
        headers = dict(record.headers)
        partition, offset = int(headers["dlq.source.partition"] or b""), int(headers["dlq.source.offset"] or b"")
        item = int(headers["dlq.item"] or b"") if "dlq.item" in headers else None
        assert (partition, offset, item) not in seen
        seen.add((partition, offset, item))
        assert headers["dlq.source.topic"] == topic.encode()
        assert headers["dlq.source.timestamp_ms"] == b"%d" % KAFKA_MS
        assert headers["dlq.error.stage"] in {b"decode", b"validate"}
        assert headers["dlq.error.message"]
        assert headers["trace"] == b"t%d" % offset
        assert record.key == b"k%d" % offset
        original = log[partition][offset]
        if item is None:
            assert record.value == original
        else:
            assert record.value is not None
            assert original is not None
            assert record.value in original
    assert seen == oracle.dead


def test_dirty_log_gives_the_windows_and_dead_letters_of_the_oracle(kafka: KafkaCluster, topics: Topics) -> None:
    log = dirty_log(7, partitions=4, records=4000, span_ms=500_000)
    oracle = publish(kafka, topics, log)
    codes, stderr = FlowProcess(settings_for(kafka, topics, KAFKA__STOP_AT_END="true")).run()
    assert codes == [0], stderr
    assert_equals_oracle(windows_in(kafka, topics), oracle)
    assert_dead_letters(read_topic(kafka.client_options, topics.dead_letter), log, oracle, topics.events)


@pytest.mark.parametrize(("processes", "workers"), [(2, 1), (1, 2)])
def test_rows_do_not_depend_on_the_number_of_workers(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, processes: int, workers: int
) -> None:
    log = dirty_log(8, partitions=4, records=4000, span_ms=500_000)
    oracle = publish(kafka, topics, log)
    env = settings_for(kafka, topics, KAFKA__STOP_AT_END="true")
    codes, stderr = FlowProcess(env, tmp_path / "recovery", processes=processes, workers=workers).run()
    assert codes == [0] * processes, stderr
    assert_equals_oracle(windows_in(kafka, topics), oracle)


def test_flow_stopped_by_signals_and_resumed_gives_the_rows_of_one_run(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    log = dirty_log(9, partitions=4, records=6000, span_ms=600_000)
    rng = random.Random(9)
    cuts = sorted(rng.sample(range(1500), 2))
    pieces = [[values[low:high] for values in log] for low, high in zip([0, *cuts], [*cuts, None], strict=True)]
    oracle = Oracle()
    offsets = [0] * len(log)
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        records = [
            NewRecord(value, None, p, timestamp_ms=KAFKA_MS) for p, values in enumerate(piece) for value in values
        ]
        for partition, values in enumerate(piece):
            for value in values:
                oracle.record(partition, offsets[partition], value, KAFKA_MS)
                offsets[partition] += 1
        produce(kafka.client_options, topics.events, records)
        env = settings_for(kafka, topics, KAFKA__STOP_AT_END=str(last).lower())
        flow = FlowProcess(env, tmp_path / "recovery").start()
        if not last:
            flow.serving()
            time.sleep(rng.uniform(0.0, 4.0))
            flow.signal(signal.SIGTERM if number % 2 else signal.SIGINT)
        codes, stderr = flow.wait()
        assert codes == [0], stderr
    assert_equals_oracle(windows_in(kafka, topics), oracle)


def test_windows_come_while_the_flow_runs_and_silent_series_get_theirs(kafka: KafkaCluster, topics: Topics) -> None:
    from tests.kafka_log import wait_for_records  # noqa: PLC0415

    flow = FlowProcess(settings_for(kafka, topics, WINDOW__IDLE_AFTER_MS="500")).start()
    try:
        values = [event(START_MS + at, "a") for at in range(0, 40_000, 500)]
        produce(
            kafka.client_options, topics.events, [NewRecord(value, b"a", 0, timestamp_ms=KAFKA_MS) for value in values]
        )
        found = wait_for_records(kafka.client_options, topics.windows, 4)
    finally:
        flow.signal(signal.SIGTERM)
        codes, stderr = flow.wait()
    assert codes == [0], stderr
    counts = [json.loads(record.value or b"")["count"] for record in found]
    assert counts[:4] == [20, 40, 60, 80]

"""The whole archive flow on a real Kafka, against the exact oracle."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.archive_log import TEXTS, ArchiveOracle, assert_holds, files, places, scan
from tests.dirty_log import START_MS, Log, dirty_log
from tests.faults.story import eventually
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import NewRecord, produce, read_topic, topic_names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics

KAFKA_MS = START_MS + 3_600_000
MEASURED = ("timestamp_ms", "service", "endpoint", "latency_ms", "status")
FILE = re.compile(r"hour=\d{4}-\d\d-\d\dT\d\d/shard=\d\d/(\d{5})-(\d{19})-(\d{19})\.parquet")


def publish(kafka: KafkaCluster, topics: Topics, log: Log, oracle: ArchiveOracle, first: int = 0) -> None:
    """Write a log to Kafka, and read it by the oracle; `first` is how many records each partition has."""
    records = []
    for partition, values in enumerate(log):
        for offset, value in enumerate(values, first):
            records.append(NewRecord(value, b"k", partition, timestamp_ms=KAFKA_MS))
            oracle.record(partition, offset, value, KAFKA_MS)
    produce(kafka.client_options, topics.events, records)


def archiving(kafka: KafkaCluster, topics: Topics, tmp_path: Path, **more: str) -> FlowProcess:
    settings = {"KAFKA__STOP_AT_END": "true", "ARCHIVE__PATH": str(tmp_path / "archive")} | more
    return FlowProcess(settings_for(kafka, topics, **settings), tmp_path / "recovery", "flows.archive")


@pytest.mark.parametrize(("processes", "workers"), [(1, 1), (2, 1), (1, 2)])
def test_dirty_log_is_archived_event_by_event_as_it_was_sent(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, processes: int, workers: int
) -> None:
    oracle = ArchiveOracle()
    publish(kafka, topics, dirty_log(21, partitions=4, records=4000, span_ms=2 * 3_600_000), oracle)
    flow = archiving(kafka, topics, tmp_path)
    flow.processes, flow.workers = processes, workers
    codes, said = flow.run()
    assert codes == [0] * processes, said
    assert oracle.late_places
    assert_holds(tmp_path / "archive", oracle)
    names = files(tmp_path / "archive")
    assert all(FILE.fullmatch(name) for name in names), names
    for row in scan(tmp_path / "archive").collect().to_dicts():
        assert row["timestamp_ms"] // 3_600_000 == hours_of(row["hour"])
    assert topics.dead_letter not in topic_names(kafka.client_options), "dead letters are only counted"


def hours_of(hour: str) -> int:
    return int(np.datetime64(hour, "h").astype(int))


def test_fields_of_other_producers_are_archived_under_the_names_of_the_contract(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    sent = {
        "at": "2026-11-23T09:30:00.250Z",
        "svc": "pay",
        "took": {"s": 0.5},
        "status": 503,
        "event_id": 7,
        "trace_id": "t1",
        "region": "eu",
        "host": None,
        "method": ["GET"],
        "user": {"id": 1, "tags": [1.50, "ü"]},
    }
    produce(kafka.client_options, topics.events, [NewRecord(json.dumps(sent).encode(), b"pay", 1)])
    fields = {"TIMESTAMP_MS": "at", "SERVICE": "svc", "LATENCY_MS": "took.s"}
    mapping = {f"EVENTS__FIELDS__{name}": key for name, key in fields.items()}
    units = {"EVENTS__TIMESTAMP_UNIT": "iso", "EVENTS__LATENCY_UNIT": "s", "EVENTS__MAX_FUTURE_MS": "31000000000"}
    codes, said = archiving(kafka, topics, tmp_path, **mapping, **units).run()
    assert codes == [0], said
    (row,) = scan(tmp_path / "archive").collect().to_dicts()
    assert [row[name] for name in MEASURED] == [1795426200250, "pay", "", 500.0, 503]
    assert [row[name] for name in TEXTS] == [None, "t1", "eu", None, None]
    assert (row["hour"], row["partition"], row["offset"], row["item"]) == ("2026-11-23T09", 1, 0, 0)
    kept = {key: sent[key] for key in ("at", "took", "event_id", "method", "user")}
    assert json.loads(row["extra"]) == kept
    assert '{"id": 1, "tags": [1.5, "\\u00fc"]}' in row["extra"], "byte by byte"


def test_archive_that_is_stopped_and_started_with_and_without_recovery_has_no_event_twice(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    oracle, log = ArchiveOracle(), dirty_log(22, partitions=4, records=3000, span_ms=3_600_000)
    cut = 500
    publish(kafka, topics, [values[:cut] for values in log], oracle)
    flow = archiving(kafka, topics, tmp_path)
    assert flow.run()[0] == [0]
    assert_holds(tmp_path / "archive", oracle)
    before = files(tmp_path / "archive")
    publish(kafka, topics, [values[cut:] for values in log], oracle, cut)
    assert flow.run()[0] == [0]
    assert_holds(tmp_path / "archive", oracle)
    assert before < files(tmp_path / "archive"), "what readers have seen stays"
    after = files(tmp_path / "archive")
    flow.recovery = None
    codes, said = flow.run()
    assert codes == [0], said
    assert files(tmp_path / "archive") == after


def test_events_that_retention_deleted_before_they_were_read_are_named(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    oracle, log = ArchiveOracle(), dirty_log(25, partitions=4, records=1200, span_ms=600_000)
    cut, deleted = 150, 180
    publish(kafka, topics, [values[:cut] for values in log], oracle)
    flow = archiving(kafka, topics, tmp_path)
    codes, said = flow.run()
    assert (codes, "log begins" in said) == ([0], False)
    publish(kafka, topics, [values[cut:] for values in log], oracle, cut)
    admin = AdminClient(dict(kafka.client_options))
    for gone in admin.delete_records([TopicPartition(topics.events, 1, deleted)]).values():
        gone.result(30)
    codes, said = flow.run()
    assert codes == [1]
    assert "retention has passed the snapshot" in said
    flow.recovery = None
    codes, said = flow.run()
    assert codes == [0], said
    told = rf"`{topics.events}` partition 1 up to offset (\d+), and the log begins at {deleted}: retention deleted"
    named = re.findall(told, said)
    assert len(named) == 1, said
    assert said.count("log begins") == 1
    lost = [place for place in oracle.sent if place[0] == 1 and int(named[0]) < place[1] < deleted]
    assert lost
    for place in lost:
        del oracle.sent[place]
        oracle.late_places.discard(place)
    rows = scan(tmp_path / "archive").collect().to_dicts()
    assert sorted(places(rows)) == sorted(oracle.sent)


def test_rows_appear_while_the_flow_runs_and_once_it_is_told_to_stop(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    oracle = ArchiveOracle()
    publish(kafka, topics, dirty_log(23, partitions=4, records=2000, span_ms=3_600_000), oracle)
    flow = archiving(kafka, topics, tmp_path, KAFKA__STOP_AT_END="false", ARCHIVE__PUBLISH_EVERY_MS="86400000")
    flow.start().serving()
    staged = tmp_path / "archive.staging"
    assert eventually(lambda: len(list(staged.glob("*/*.arrow"))) >= 4)
    assert files(tmp_path / "archive") == set(), "rows wait for as long as they are told to"
    flow.signal(signal.SIGTERM)
    codes, said = flow.wait()
    assert codes == [0], said
    assert_holds(tmp_path / "archive", oracle)


def test_dead_letters_are_written_where_the_flow_is_told_to(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    oracle = ArchiveOracle()
    publish(kafka, topics, dirty_log(24, partitions=4, records=500, span_ms=60_000), oracle)
    codes, said = archiving(kafka, topics, tmp_path, EVENTS__DEAD_LETTERS="true").run()
    assert codes == [0], said
    assert_holds(tmp_path / "archive", oracle)
    assert {record.partition for record in read_topic(kafka.client_options, topics.dead_letter)} == {0, 1, 2, 3}

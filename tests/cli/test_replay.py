"""`tailmark replay` on a real Kafka: a slice of the past gives the windows that it gave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cli.replay.times import shown, time_ms
from cli.run import flows
from tests.archive_log import scan
from tests.cli.conftest import command_line
from tests.dirty_log import START_MS, dirty_log, event
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import LogRecord, NewRecord, create_topic, produce, read_topic

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command
    from tests.conftest import KafkaCluster, Topics

SPAN_MS = 600_000
FROM_MS, TO_MS = START_MS + 123_456, START_MS + 400_000
LENGTH_MS = 60_000
COUNTED = ("count", "errors", "error_ratio", "rate_per_s", "mean_ms", "max_ms", "p50_ms", "p90_ms", "p99_ms")
Windows = dict[tuple[str, str, int], list[Any]]


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """A function that runs `tailmark replay`, and gives what its flow writes as well."""
    tailmark = command_line(monkeypatch, capfd)
    return lambda env, *arguments: tailmark(env, "replay", *arguments)


def publish(kafka: KafkaCluster, topics: Topics) -> None:
    """Write a dirty log whose records are stamped about when their events happened."""
    records = []
    for partition, values in enumerate(dirty_log(51, partitions=4, records=6000, span_ms=SPAN_MS)):
        for offset, value in enumerate(values):
            stamp_ms = START_MS + SPAN_MS * offset // len(values) + 2_000
            records.append(NewRecord(value, b"k%d" % offset, partition, (("trace", b"t"),), stamp_ms))
    produce(kafka.client_options, topics.events, records)


def windows_in(kafka: KafkaCluster, topic: str) -> Windows:
    """Give what was counted in the windows that lie in the slice as a whole."""
    found: Windows = {}
    for record in read_topic(kafka.client_options, topic):
        row = json.loads(record.value or b"")
        if row["window_start_ms"] >= FROM_MS and row["window_end_ms"] <= TO_MS:
            key = (row["service"], row["endpoint"], row["window_end_ms"])
            assert key not in found
            found[key] = [row[name] for name in COUNTED]
    return found


def run_to_the_end(env: dict[str, str], flow: str = "flows.anomaly") -> None:
    codes, said = FlowProcess({**env, "TAILMARK_KAFKA__STOP_AT_END": "true"}, flow=flow).run()
    assert codes == [0], said


def everything(kafka: KafkaCluster, topics: Topics) -> list[list[LogRecord]]:
    names = (topics.events, topics.windows, topics.alerts, topics.alerts_state, topics.dead_letter)
    return [read_topic(kafka.client_options, name) for name in names]


@pytest.mark.parametrize("source", ["topic", "archive"])
def test_windows_of_a_slice_are_those_that_the_live_flow_wrote(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, replay: Command, source: str
) -> None:
    publish(kafka, topics)
    env = settings_for(kafka, topics, ARCHIVE__PATH=str(tmp_path / "archive"))
    run_to_the_end(env)
    if source == "archive":
        run_to_the_end(env, "flows.archive")
    live = everything(kafka, topics)
    slice_of = ("--from", str(FROM_MS), "--to", shown(TO_MS), "--source", source)
    code, text, said = replay(env, *slice_of, "--prefix", "again.", "--output", "json")
    assert code == 0, said
    summary = json.loads(text)
    assert everything(kafka, topics) == live, "the live topics are left alone"
    expected, found = windows_in(kafka, topics.windows), windows_in(kafka, f"again.{topics.windows}")
    # A series that was silent in the slice so far is not known in it.
    assert found.items() <= expected.items()
    assert {key: row for key, row in found.items() if row[0]} == {key: row for key, row in expected.items() if row[0]}
    assert sum(row[0] for row in found.values()) > 1000
    events = read_topic(kafka.client_options, f"again.{topics.events}")
    assert summary["written"] == {
        f"again.{topics.events}": len(events),
        f"again.{topics.windows}": len(read_topic(kafka.client_options, f"again.{topics.windows}")),
        f"again.{topics.alerts}": 0,
        f"again.{topics.alerts_state}": 0,
        f"again.{topics.dead_letter}": 0,
    }
    assert (summary["events"], summary["from_ms"], summary["to_ms"]) == (len(events), FROM_MS, TO_MS)
    assert all(FROM_MS <= json.loads(record.value or b"")["timestamp_ms"] < TO_MS for record in events)
    stamps = {record.timestamp_ms for record in live[0]}
    assert {record.timestamp_ms for record in events} <= stamps
    for partition in range(4):
        in_order = [record.timestamp_ms for record in events if record.partition == partition]
        assert in_order == sorted(in_order)
    if source == "topic":
        assert {record.headers for record in events} == {(("trace", b"t"),)}


def test_slice_is_archived_anew_and_an_earlier_replay_is_not_mixed_with_it(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, replay: Command
) -> None:
    publish(kafka, topics)
    env = settings_for(kafka, topics, ARCHIVE__PATH=str(tmp_path / "archive"))
    run_to_the_end(env, "flows.archive")
    slice_of = ("--from", str(FROM_MS), "--to", str(TO_MS), "--source", "archive")
    assert replay(env, *slice_of, "--flow", "archive")[0] == 0
    old, new = scan(tmp_path / "archive").collect(), scan(tmp_path / "archive-replay").collect()
    columns = [
        "timestamp_ms",
        "service",
        "endpoint",
        "latency_ms",
        "status",
        "extra",
        "kafka_timestamp_ms",
        "partition",
    ]
    inside = old.filter(old["timestamp_ms"].is_between(FROM_MS, TO_MS, closed="left") & ~old["late"])
    assert new.select(columns).sort(columns).equals(inside.select(columns).sort(columns))
    code, _, said = replay(env, *slice_of)
    assert (code, said.count("\n")) == (1, 1)
    assert f"`replay.{topics.events}` is there from an earlier replay" in said
    code, _, said = replay(env, *slice_of, "--flow", "archive", "--overwrite")
    assert "archive-replay is there from an earlier replay" in said
    code, text, _ = replay(env, *slice_of, "--overwrite")
    assert code == 0
    assert f"{len(inside):,} events of" in text
    assert len(read_topic(kafka.client_options, f"replay.{topics.events}")) == len(inside)


def test_mapped_events_are_replayed_from_topic_and_archive(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, replay: Command
) -> None:
    values = [b'{"at":%d,"svc":"pay","took":0.5}' % (START_MS // 1000 + number) for number in range(100)]
    produce(
        kafka.client_options, topics.events, [NewRecord(value, b"k", 2, (), START_MS + 200_000) for value in values]
    )
    fields = {"TIMESTAMP_MS": "at", "SERVICE": "svc", "LATENCY_MS": "took"}
    mapping = {f"EVENTS__FIELDS__{name}": key for name, key in fields.items()}
    mapping |= {"EVENTS__TIMESTAMP_UNIT": "s", "EVENTS__LATENCY_UNIT": "s"}
    env = settings_for(kafka, topics, ARCHIVE__PATH=str(tmp_path / "archive"), **mapping)
    run_to_the_end(env, "flows.archive")
    for source in ("topic", "archive"):
        slice_of = ("--from", str(START_MS), "--to", str(START_MS + 60_000))
        assert replay(env, *slice_of, "--source", source, "--prefix", f"{source}.")[0] == 0
        rows = [json.loads(r.value or b"") for r in read_topic(kafka.client_options, f"{source}.{topics.windows}")]
        assert {(row["service"], row["max_ms"]) for row in rows if row["count"]} == {("pay", 500.0)}
        assert max(row["count"] for row in rows) == 60


def test_what_can_not_be_replayed_is_one_line(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, replay: Command
) -> None:
    produce(kafka.client_options, topics.events, [NewRecord(event(START_MS), timestamp_ms=START_MS)])
    env = settings_for(kafka, topics, ARCHIVE__PATH=str(tmp_path / "archive"))
    refusals = [
        (("--from", "yesterday"), 2, "'yesterday' is no time; write ISO 8601"),
        (("--from", "1h", "--to", "2h"), 2, "the slice is empty"),
        (("--from", "1h", "--flow", "other"), 2, "there is no flow 'other'; the flows are anomaly"),
        (("--from", "1h", "--prefix", "."), 2, "or live topics would be written to"),
        (("--from", "1h"), 1, "there is no event from"),
        (("--from", "1h", "--source", "archive"), 1, "has no files; let flows.archive run"),
    ]
    for arguments, expected, message in refusals:
        code, out, said = replay(env, *arguments)
        assert (code, out, said.count("\n")) == (expected, "", 1), said
        assert message in said
    create_topic(kafka.client_options, f"replay.{topics.windows}", partitions=1)
    assert "is there from an earlier replay" in replay(env, "--from", str(START_MS))[2]


@pytest.mark.skipif("bridge" not in flows(), reason="there is no bridge to replay through")
def test_slice_goes_through_the_bridge_and_reaches_nobody(kafka: KafkaCluster, topics: Topics, replay: Command) -> None:
    publish(kafka, topics)
    env = settings_for(kafka, topics, PROMETHEUS__REMOTE_WRITE_URL="http://127.0.0.1:9/nobody")
    code, text, said = replay(env, "--from", str(FROM_MS), "--to", str(TO_MS), "--flow", "bridge")
    assert code == 0, said
    assert "went through bridge" in text


def test_flow_that_fails_fails_the_replay(kafka: KafkaCluster, topics: Topics, replay: Command) -> None:
    produce(kafka.client_options, topics.events, [NewRecord(event(START_MS), timestamp_ms=START_MS)])
    env = settings_for(kafka, topics, PROMETHEUS__HOST="203.0.113.1")
    code, out, said = replay(env, "--from", str(START_MS))
    assert (code, out) == (1, "")
    assert "flow anomaly ended with exit code 1" in said


NOW_MS = 1_795_424_400_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW_MS),
        ("90m", NOW_MS - 90 * 60_000),
        ("1.5h", NOW_MS - 90 * 60_000),
        ("2 d", NOW_MS - 2 * 86_400_000),
        ("1795424400000", NOW_MS),
        ("2026-11-23T09:00", NOW_MS),
        ("2026-11-23T10:00:00+01:00", NOW_MS),
        ("2026-11-23T09:00:00.250Z", NOW_MS + 250),
        ("2026-11-23", NOW_MS - 9 * 3_600_000),
    ],
)
def test_times_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert time_ms(text, NOW_MS) == expected
    assert time_ms(shown(expected), 0) == expected


@pytest.mark.parametrize("text", ["", "soon", "-5m", "5 fortnights", "2026-13-01", "12:00"])
def test_what_is_no_time_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; write ISO 8601"):
        time_ms(text, NOW_MS)

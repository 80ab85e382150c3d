"""`python -m simulator` as a person runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simulator.__main__ import app
from simulator.disorder import Disturbances
from simulator.stream import record
from tests.kafka_log import read_topic, wait_for_records
from tests.simulator.recording import PARTITIONS, plan, rows

ROOT = Path(__file__).parents[2]
START = "2026-01-01T10:00:00"


def command(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the simulator to its end."""
    return subprocess.run(
        [sys.executable, "-m", "simulator", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_backfill_fills_the_topics_and_says_what_it_sent(kafka: Any, topics: Any, cluster: dict[str, str]) -> None:
    done = command("--backfill", "--start", START, "--duration", "8m", "--rate", "100", env=cluster)
    assert done.returncode == 0, done.stderr
    events = read_topic(kafka.client_options, topics.events)
    truths = [json.loads(r.value or b"") for r in read_topic(kafka.client_options, topics.truth)]
    assert done.stdout.startswith(f"{len(events) + 1:,} records delivered, 0 failed")
    assert f"{480 * PARTITIONS:,} heartbeats, 1 incidents" in done.stdout
    assert [truth["kind"] for truth in truths] == ["latency-step"]
    assert {r.partition for r in events if r.key is None} == set(range(PARTITIONS))


def test_same_seed_and_start_give_the_same_records_whatever_the_speed(
    kafka: Any, topics: Any, cluster: dict[str, str]
) -> None:
    usual = ["--seed", "3", "--start", START, "--duration", "20s", "--rate", "300"]
    assert command(*usual, "--backfill", env=cluster).returncode == 0
    first = read_topic(kafka.client_options, topics.events)
    other = {**cluster, "TAILMARK_KAFKA__TOPICS__EVENTS": f"{topics.prefix}.again"}
    assert command(*usual, "--speed", "10", env=other).returncode == 0
    second = read_topic(kafka.client_options, f"{topics.prefix}.again")
    assert first == second
    assert len(first) > 1000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_flushes_and_says_what_was_sent(
    kafka: Any, topics: Any, cluster: dict[str, str], number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", "--speed", "20", "--start", START],
        cwd=ROOT,
        env={**os.environ, **cluster},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_records(kafka.client_options, topics.events, 500)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    found = read_topic(kafka.client_options, topics.events)
    assert output.startswith(f"stopped: {len(found):,} records delivered, 0 failed")
    # Whatever was sent is a prefix of the recording, partition by partition.
    whole = recording_of(300)
    for partition in range(PARTITIONS):
        sent = [r.value for r in found if r.partition == partition]
        assert sent == whole[partition][: len(sent)]
        assert sent


def recording_of(seconds: int) -> dict[int, list[bytes]]:
    """Give the values of each partition of the default recording that begins at `START`."""

    wanted = plan(scenario="demo", duration_ms=seconds * 1000, disturbances=Disturbances(), heartbeat_ms=1000)
    parts: dict[int, list[bytes]] = {partition: [] for partition in range(PARTITIONS)}
    for partition, _, _, value in rows(record(wanted, PARTITIONS)):
        parts[partition].append(value)
    return parts


def test_output_that_is_no_terminal_has_plain_lines(kafka: Any, topics: Any, cluster: dict[str, str]) -> None:
    done = command("--speed", "10", "--start", START, "--duration", "60s", env=cluster)
    assert done.returncode == 0
    assert "event time 2026-01-01T10:00" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--backfill"], "--backfill needs --duration"),
        (["--duration", "soon"], "`--duration` must be a number with ms, s, m, h or d; got 'soon'"),
        (["--start", "soon"], "`--start` must be ISO 8601 or milliseconds since 1970; got 'soon'"),
        (["--scenario", "storm"], "`scenario` must be one of demo, calm, random; got 'storm'"),
        (["--encoding", "xml"], "`encoding` must be one of single, array, ndjson, mixed; got 'xml'"),
        (["--late", "7"], "`late_ratio` must be in [0, 1]"),
        (["--rate", "0"], "`rate` must be over 0"),
        (["replay", "/nowhere"], "can't read /nowhere: No such file or directory"),
        (["replay", "/nowhere", "--format", "xml"], "`--format` must be one of ndjson, parquet, nginx, envoy"),
    ],
)
def test_impossible_arguments_end_with_one_line_before_kafka_is_asked(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"simulator: {complaint}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_bad_settings_end_with_one_line() -> None:
    done = command("--backfill", "--duration", "1s", env={"TAILMARK_KAFKA__BOOTSTRAP": "x"})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "TAILMARK_KAFKA__BOOTSTRAP" in done.stderr


def test_absent_broker_ends_with_one_line(
    free_port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("simulator.publish.METADATA_TIMEOUT_S", 1.0)
    address = f"127.0.0.1:{free_port}"
    env = {"TAILMARK_KAFKA__BOOTSTRAP_SERVERS": address}
    done = CliRunner().invoke(app, ["--backfill", "--duration", "1s"], env=env)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"simulator: kafka at {address} can't serve topic")
    assert done.stderr.count("\n") == 1
    assert capfd.readouterr().err == "", "the client says nothing beside"


def test_failed_delivery_ends_with_one_line(cluster: dict[str, str], make_topic: Any) -> None:
    topic = make_topic(partitions=1, message_timestamp_after_max_ms="1000")
    env = {**cluster, "TAILMARK_KAFKA__TOPICS__EVENTS": topic}
    done = command("--backfill", "--start", "2090-01-01", "--duration", "1s", env=env)
    assert done.returncode == 1
    assert "records were not delivered to" in done.stderr
    assert done.stderr.count("\n") == 1


def test_replay_publishes_good_lines_and_reports_bad_ones(
    kafka: Any, topics: Any, cluster: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "traffic.ndjson"
    good = [b'{"timestamp_ms":%d,"service":"cart","latency_ms":3}' % (1_767_225_600_000 + n) for n in range(50)]
    file.write_bytes(b"\n".join([*good, b"garbage"]))
    done = command("replay", str(file), "--at-once", env=cluster)
    assert done.returncode == 0, done.stderr
    found = read_topic(kafka.client_options, topics.events)
    assert [r.value for r in found if r.key] == good
    assert {r.partition for r in found if r.key is None} == set(range(PARTITIONS))
    assert "1 bad lines left out: 1 not JSON (first: line 51)" in done.stderr
    assert "50 events" in done.stdout


def test_times_that_the_topic_does_not_keep_are_warned_of(cluster: dict[str, str], make_topic: Any) -> None:
    short = {**cluster, "TAILMARK_KAFKA__TOPICS__EVENTS": make_topic(retention_ms="86400000")}
    ever = {**cluster, "TAILMARK_KAFKA__TOPICS__EVENTS": make_topic(retention_ms="-1")}
    usual = ["--backfill", "--start", START, "--duration", "1s", "--no-truth"]
    assert "keeps 1 days of event time" in command(*usual, env=short).stderr
    assert command(*usual, env=ever).stderr == ""


def test_replay_of_an_unknown_format_ends_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("nothing to see\n")
    done = command("replay", str(file))
    assert done.returncode == 2
    assert "unknown format" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_has_examples() -> None:
    assert "python -m simulator --speed 30 --duration 30m" in " ".join(command("--help").stdout.split())


def test_accelerated_events_end_now_and_not_in_the_future(kafka: Any, topics: Any, cluster: dict[str, str]) -> None:
    done = command("--speed", "60", "--duration", "2m", "--rate", "50", "--clean", env=cluster)
    assert done.returncode == 0, done.stderr
    times_ms = [json.loads(r.value or b"")["timestamp_ms"] for r in read_topic(kafka.client_options, topics.events)]
    assert max(times_ms) <= time.time() * 1000
    assert max(times_ms) - min(times_ms) > 110_000

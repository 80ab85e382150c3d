"""Recorded traffic: every format, bad lines, time and heartbeats."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from simulator.replay import CHUNK_LINES, Bad, Layout, ReplayError, first_time_ms, replay, sniff
from simulator.stream import record
from tests.simulator.recording import PARTITIONS, START_MS, contents, items, plan, rows, values

NGINX = '203.0.113.7 - - [10/Oct/2025:13:55:{:02d} +0000] "GET /cart HTTP/1.1" 200 23 "-" "curl" rt=0.25\n'
ENVOY = '[2025-10-10T20:17:{:02d}.000Z] "GET /cart HTTP/2" 200 - 154 0 226 100 "10.0.35.28" "curl" "abc" "cart" "-"\n'


def event(offset_ms: int, **changes: Any) -> bytes:
    usual = {"timestamp_ms": START_MS + offset_ms, "service": "cart", "latency_ms": 1.0}
    return json.dumps({**usual, **changes}).encode()


def replayed(
    path: Path, *, kind: str | None = None, heartbeat_ms: int = 0, bad: Bad | None = None, **layout: Any
) -> list[tuple[int, int, bytes | None, bytes]]:
    chunks = replay(
        path,
        kind or sniff(path),
        layout=Layout(**layout),
        partitions=PARTITIONS,
        heartbeat_ms=heartbeat_ms,
        bad=bad if bad is not None else Bad(),
    )
    return list(rows(chunks))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recorded"


def test_recorded_json_lines_are_published_unchanged(file: Path) -> None:
    lines = [event(0), b'{ "service":"b\xc3\xbc",  "timestamp_ms":%d,"latency_ms":1e1,"x":[1, 2]}' % START_MS]
    file.write_bytes(b"\n".join(lines) + b"\n\n")
    assert [value for _, _, _, value in replayed(file)] == lines
    assert [key for _, _, key, _ in replayed(file)] == [b"cart", "bü".encode()]


def test_own_recording_comes_back_byte_for_byte(file: Path) -> None:
    sent = values(record(plan(), PARTITIONS))
    file.write_bytes(b"\n".join(sent))
    assert [value for _, _, _, value in replayed(file)] == sent


def test_gzipped_recording_is_read_like_a_plain_one(file: Path) -> None:
    file.write_bytes(gzip.compress(event(0) + b"\n" + event(1)))
    assert [value for _, _, _, value in replayed(file)] == [event(0), event(1)]


def test_line_with_an_array_is_one_record_with_all_its_events(file: Path) -> None:
    line = b"[" + event(5) + b"," + event(3) + b"]"
    file.write_bytes(line)
    assert replayed(file) == [(replayed(file)[0][0], START_MS + 5, b"cart", line)]
    chunks = replay(file, "ndjson", layout=Layout(), partitions=1, heartbeat_ms=0, bad=Bad())
    assert contents(chunks)["events"] == 2


def test_recorded_disorder_stays_and_arrival_never_falls(file: Path) -> None:
    file.write_bytes(b"\n".join([event(0), event(5000), event(1000), event(6000)]))
    found = replayed(file)
    assert [items(value)[0]["timestamp_ms"] - START_MS for _, _, _, value in found] == [0, 5000, 1000, 6000]
    assert [arrival_ms - START_MS for _, arrival_ms, _, _ in found] == [0, 5000, 5000, 6000]


def test_every_partition_gets_heartbeats_while_the_recording_lasts(file: Path) -> None:
    count = CHUNK_LINES + 100
    file.write_bytes(b"\n".join(event(10 * number) for number in range(count)))
    beats: dict[int, list[int]] = {}
    for partition, arrival_ms, _, value in replayed(file, heartbeat_ms=1000):
        if b"heartbeat" in value:
            beats.setdefault(partition, []).append(arrival_ms)
    assert set(beats) == set(range(PARTITIONS))
    assert all(times == list(range(START_MS, START_MS + 10 * count, 1000)) for times in beats.values())


def test_night_without_traffic_is_not_filled_with_heartbeats(file: Path) -> None:
    file.write_bytes(event(0) + b"\n" + event(8 * 3_600_000))
    found = replayed(file, heartbeat_ms=1000)
    assert len(found) == 2 + 2 * PARTITIONS
    assert [arrival_ms for _, arrival_ms, _, _ in found] == sorted(arrival_ms for _, arrival_ms, _, _ in found)


def test_recorded_heartbeats_are_replaced(file: Path) -> None:
    file.write_bytes(event(0) + b"\n" + b'{"timestamp_ms":%d,"heartbeat":true}' % START_MS)
    bad = Bad()
    assert [value for _, _, _, value in replayed(file, bad=bad)] == [event(0)]
    assert str(bad) == ""


def test_bad_lines_are_counted_by_reason_and_left_out(file: Path) -> None:
    lines = [
        event(0),
        b"{",
        b"7",
        b'{"service":"a"}',
        b'{"timestamp_ms":1}',
        event(0, service=""),
        b"[]",
        b"\xff{",
        event(1),
    ]
    file.write_bytes(b"\n".join(lines))
    bad = Bad()
    assert [value for _, _, _, value in replayed(file, bad=bad)] == [event(0), event(1)]
    assert bad.reasons == {
        "not JSON": 2, "no event": 2, "no timestamp": 1, "timestamp outside this century": 1, "no service": 1
    }  # fmt: skip
    assert str(bad).startswith("7 bad lines left out: 2 not JSON (first: line 2), ")


def test_fields_and_units_of_other_producers_are_found(file: Path) -> None:
    file.write_bytes(b'{"at":"2025-10-10T12:00:00.5Z","app":{"name":"cart"}}')
    fields = {"timestamp_ms": "at", "service": "app.name"}
    ((_, arrival_ms, key, _),) = replayed(file, fields=fields, timestamp_unit="iso")
    assert arrival_ms == 1_760_097_600_500
    assert key == b"cart"


@pytest.mark.parametrize(("unit", "factor"), [("s", 0.001), ("us", 1000), ("ns", 1_000_000)])
def test_timestamps_are_read_in_their_unit(file: Path, unit: str, factor: float) -> None:
    file.write_bytes(json.dumps({"timestamp_ms": START_MS * factor, "service": "cart"}).encode())
    assert replayed(file, timestamp_unit=unit)[0][1] == START_MS


def test_iso_time_that_is_none_is_one_reason_for_all_lines(file: Path) -> None:
    file.write_bytes(b"\n".join(event(0, timestamp_ms=f"soon {number}") for number in range(3)))
    bad = Bad()
    assert replayed(file, bad=bad, timestamp_unit="iso") == []
    assert bad.reasons == {"timestamp is not ISO 8601": 3}


def test_parquet_rows_become_events_without_their_nulls(file: Path) -> None:
    table = pl.DataFrame(
        {
            "timestamp_ms": [START_MS, START_MS + 1, None],
            "service": ["cart", "pay", "pay"],
            "latency_ms": [1.5, 2.0, 3.0],
            "status": [200, None, 500],
        }
    )
    table.write_parquet(file)
    bad = Bad()
    found = [json.loads(value) for _, _, _, value in replayed(file, bad=bad)]
    assert found == [
        {"timestamp_ms": START_MS, "service": "cart", "latency_ms": 1.5, "status": 200},
        {"timestamp_ms": START_MS + 1, "service": "pay", "latency_ms": 2.0},
    ]
    assert bad.reasons == {"no timestamp": 1}


@pytest.mark.parametrize(
    ("unit", "wanted"), [("ms", START_MS), ("s", START_MS // 1000), ("iso", "2026-01-01T10:00:00.000Z")]
)
def test_parquet_timestamps_leave_in_the_unit_that_the_flows_read(file: Path, unit: str, wanted: object) -> None:
    moment = datetime.fromtimestamp(START_MS / 1000, UTC)
    pl.DataFrame({"timestamp_ms": [moment], "service": ["cart"]}).write_parquet(file)
    ((_, arrival_ms, _, value),) = replayed(file, timestamp_unit=unit)
    assert json.loads(value)["timestamp_ms"] == wanted
    assert arrival_ms == START_MS


def test_directory_of_parquet_files_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for hour in (2, 1):
        (tmp_path / f"hour={hour}").mkdir()
        pl.DataFrame({"timestamp_ms": [START_MS + hour], "service": ["cart"]}).write_parquet(
            tmp_path / f"hour={hour}" / "part.parquet"
        )
    assert [arrival_ms - START_MS for _, arrival_ms, _, _ in replayed(tmp_path)] == [1, 2]


def test_parquet_without_a_service_says_which_column_is_missing(file: Path) -> None:
    pl.DataFrame({"timestamp_ms": [1]}).write_parquet(file)
    with pytest.raises(ReplayError, match="has no column service"):
        replayed(file)


@pytest.mark.parametrize(("kind", "line"), [("nginx", NGINX), ("envoy", ENVOY)])
def test_access_log_lines_become_events(file: Path, kind: str, line: str) -> None:
    file.write_text(line.format(1) + "garbage\n" + line.format(3))
    assert sniff(file) == kind
    bad = Bad()
    found = replayed(file, bad=bad)
    assert [json.loads(value)["endpoint"] for _, _, _, value in found] == ["/cart", "/cart"]
    assert found[1][1] - found[0][1] == 2000
    assert bad.reasons == {f"no {kind} line": 1}


@pytest.mark.parametrize("content", [b"", b"hello\nworld\n", b"a,b\n1,2\n", b"\x00\x01\x02"])
def test_unknown_format_is_an_error_that_says_how_to_go_on(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ReplayError, match=r"unknown format .* choose one with --format"):
        sniff(file)


def test_nginx_log_without_request_time_is_an_error_that_says_what_to_add(file: Path) -> None:
    file.write_text(NGINX.format(1).replace(" rt=0.25", ""))
    with pytest.raises(ReplayError, match=r"add rt=\$request_time"):
        sniff(file)


def test_absent_file_is_an_error(file: Path) -> None:
    with pytest.raises(ReplayError, match="No such file"):
        sniff(file)


def test_file_without_any_event_is_an_error(file: Path) -> None:
    file.write_bytes(b'{"a":1}\n')
    with pytest.raises(ReplayError, match="has no line that is an event"):
        first_time_ms(file, "ndjson", Layout())


def test_broken_archive_is_an_error_not_a_traceback(file: Path) -> None:
    file.write_bytes(gzip.compress(event(0) * 1000)[:-20])
    with pytest.raises(ReplayError, match="can't read"):
        replayed(file, kind="ndjson")


def test_recording_begins_at_its_first_good_line(file: Path) -> None:
    file.write_bytes(b"{}\n" + event(7))
    assert first_time_ms(file, "ndjson", Layout()) == START_MS + 7

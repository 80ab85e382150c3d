"""Requests of remote write, read back by the letter of the specifications."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.buckets import OFFSET
from operators.kernels.resolution import classic_counts
from sinks.remote_write_encoding import STALE_NAN
from sinks.remote_write_requests import Batch, batches
from sinks.remote_write_wire import signed_varints, varint, zigzag
from sinks.tally_exposition import LE
from tests.dirty_log import START_MS, dirty_log
from tests.kernels.tally_world import RULES, TallyWorld
from tests.sinks.wire_reader import ReadSeries, read_packed, read_request, read_varint, real, signed

if TYPE_CHECKING:
    from operators.kernels.tally_frame import TallyFrame
    from sinks.remote_write_dialects import Version

VERSIONS: list[Version] = ["1.0", "2.0"]
PANE_MS = RULES.slide_ms


@pytest.fixture(scope="module")
def frames() -> list[TallyFrame]:
    """Frames of a dirty log with series that begin, end and come back."""
    world = TallyWorld(2, replace(RULES, series_ttl_ms=20_000))
    log = dirty_log(41, partitions=2, records=400, span_ms=100_000)
    for number, value in enumerate(log[0]):
        fields = {"timestamp_ms": START_MS + number * 400, "service": f"rare-{number // 60}", "latency_ms": number}
        if number % 7 == 0:
            log[0][number] = json.dumps(fields | {"trace_id": f"t{number}", "endpoint": '"ü'}).encode()
        assert value is None or isinstance(value, bytes)
    world.run(log)
    return world.frames


def read(frames: list[TallyFrame], version: Version, *, most: int = 10**6, native: bool = True) -> list[ReadSeries]:
    found = []
    for frame in frames:
        for batch in batches([frame], version, max_samples=most, native=native):
            series = read_request(batch.version, batch.body())
            assert len(series) == len(batch.entries)
            assert len({one.key for one in series}) == len(series), "a series is in a request once"
            found += series
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_are_sorted_and_unique_and_none_is_empty(frames: list[TallyFrame], version: Version) -> None:
    for one in read(frames, version):
        names = [name for name, _ in one.labels]
        assert names == sorted(set(names))
        assert names[0] == "__name__"
        assert all(name and value for name, value in one.labels)


@pytest.mark.parametrize("version", VERSIONS)
def test_samples_of_every_series_are_in_the_order_of_time(frames: list[TallyFrame], version: Version) -> None:
    last: dict[object, int] = {}
    for one in read(sorted(frames, key=lambda frame: frame.pane_end_ms), version):
        (at_ms,) = [sample[0] for sample in one.samples] or [said["at_ms"] for said in one.histograms]
        assert at_ms > last.get(one.key, 0)
        last[one.key] = at_ms
    assert len(last) > 100


@pytest.mark.parametrize("version", VERSIONS)
def test_request_says_what_the_frame_says(frames: list[TallyFrame], version: Version) -> None:
    for frame in frames:
        samples, natives = {}, {}
        for one in read([frame], version):
            labels = dict(one.labels)
            series = (labels["service"], labels.get("endpoint", ""))
            samples.update(
                {
                    (labels["__name__"], *series, labels.get("le"), labels.get("code")): real(value)
                    for at_ms, value, _ in one.samples
                    if at_ms == frame.pane_end_ms
                }
            )
            if one.histograms and one.histograms[0]["at_ms"] == frame.pane_end_ms:
                natives[series] = one.histograms[0]
        expected, expected_natives = what_is_in(frame)
        assert samples == expected
        for series, said in natives.items():
            count, sum_s, schema, zeros, counts = expected_natives[series]
            assert (said["count"], real(said["sum"])) == (count, sum_s)
            assert (said["schema"], said["zeros"], said["counts"]) == (schema, zeros, counts)
        assert set(natives) == set(expected_natives)


def what_is_in(frame: TallyFrame) -> tuple[dict[object, float], dict[object, object]]:
    samples: dict[object, float] = {}
    natives: dict[object, object] = {}
    name, series = "telemetry_request_duration_seconds", list(zip(frame.service, frame.endpoint, strict=True))
    for row, one in enumerate(series):
        for le, count in zip(LE, classic_counts(frame)[row].tolist(), strict=True):
            samples[f"{name}_bucket", *one, le, None] = count
        samples[f"{name}_sum", *one, None, None] = frame.sum_s[row]
        samples[f"{name}_count", *one, None, None] = frame.count[row]
        here = frame.bucket_row == row
        counts = dict(zip(frame.bucket_code[here].tolist(), frame.bucket_count[here].tolist(), strict=True))
        zeros = counts.pop(0, 0)
        by_index = {code - OFFSET: count for code, count in counts.items()}
        natives[one] = (frame.count[row], frame.sum_s[row], frame.schema[row], zeros, by_index)
    for row, status, count in zip(frame.code_row, frame.code_status, frame.code_count, strict=True):
        samples["telemetry_requests_total", *series[row], None, str(status)] = count
    return samples, natives


@pytest.mark.parametrize("version", VERSIONS)
def test_series_begins_with_a_zero_and_ends_with_a_stale_marker(frames: list[TallyFrame], version: Version) -> None:
    begun: set[object] = set()
    ended = 0
    for one in read(sorted(frames, key=lambda frame: frame.pane_end_ms), version):
        value = one.samples[0][1] if one.samples else one.histograms[0]["sum"]
        at_ms = one.samples[0][0] if one.samples else one.histograms[0]["at_ms"]
        if value == STALE_NAN:
            assert struct.unpack("<Q", value)[0] == 0x7FF0000000000002
            assert at_ms % PANE_MS == PANE_MS - 1
            begun.remove(one.key)
            ended += 1
        elif one.key not in begun:
            assert real(value) == 0
            begun.add(one.key)
    assert ended > 50


def test_newer_version_tells_kind_and_start_of_every_series(frames: list[TallyFrame]) -> None:
    for one in read(frames, "2.0"):
        counter = one.labels[0][1] == "telemetry_requests_total"
        assert one.kind is not None
        assert one.kind[0] == (1 if counter else 3)
        assert one.kind[1]
        starts = [sample[2] for sample in one.samples] + [said["start_ms"] for said in one.histograms]
        assert starts == [one.created_ms]
        assert one.created_ms
    assert all(sample[2] is None for one in read(frames, "1.0") for sample in one.samples)


@pytest.mark.parametrize("version", VERSIONS)
def test_exemplar_goes_with_its_bucket_and_its_native_histogram(frames: list[TallyFrame], version: Version) -> None:
    expected = [
        (frame.service[one.row], one.latency_us / 1e6, one.timestamp_ms, one.trace_id)
        for frame in frames
        for one in frame.exemplars
    ]
    found: dict[bool, list[tuple[str, float, int, str]]] = {True: [], False: []}
    for one in read(frames, version):
        for labels, value, at_ms in one.exemplars:
            said = dict(one.labels)
            assert set(labels) == {"trace_id"}
            found["le" in said].append((said["service"], value, at_ms, labels["trace_id"]))
            assert "le" not in said or value <= float(said["le"]) < 2 * max(value, 2**-11) or said["le"] == "+Inf"
    assert sorted(found[True]) == sorted(found[False]) == sorted(expected)
    assert len(expected) > 5


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("most", [1, 30, 1000])
def test_size_of_requests_changes_nothing_in_them(frames: list[TallyFrame], version: Version, most: int) -> None:
    def plain(series: list[ReadSeries]) -> list[str]:
        return [repr(one) for one in series]

    assert plain(read(frames, version, most=most)) == plain(read(frames, version))
    largest = max(len(b.entries) for f in frames for b in batches([f], version, max_samples=most, native=False))
    assert largest < most + len(LE) + 10


def test_parted_request_is_the_same_series(frames: list[TallyFrame]) -> None:
    def parts(batch: Batch) -> list[ReadSeries]:
        if len(batch.entries) == 1:
            return read_request(batch.version, batch.body())
        first, second = batch.halves()
        return parts(first) + parts(second)

    for version in VERSIONS:
        for batch in batches(frames[:1], version, max_samples=1000, native=True):
            assert list(map(repr, parts(batch))) == list(map(repr, read_request(version, batch.body())))


def test_native_histograms_can_be_left_out(frames: list[TallyFrame]) -> None:
    assert all(one.samples for one in read(frames, "1.0", native=False))


@given(st.lists(st.integers(-(2**62), 2**62), max_size=50))
def test_columns_of_numbers_are_encoded_as_single_ones_are(values: list[int]) -> None:
    data, position = signed_varints(np.array(values, np.int64))
    assert [signed(value) for value in read_packed(data)] == values
    assert data == b"".join(varint(zigzag(value)) for value in values)
    assert [read_varint(data, at)[0] for at in position[:-1].tolist()] == [zigzag(value) for value in values]

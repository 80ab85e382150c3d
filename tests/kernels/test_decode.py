"""What is an event, what is not and why, in every encoding and with every mapping."""

from __future__ import annotations

import gc
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.kernels.decode import Event, EventDecoder, Reject
from operators.kernels.intake import NO_TIME_MS, Intake, IntakeRules, take
from operators.kernels.mapping import mapped_decoder
from operators.kernels.series import SeriesTable
from tests.dirty_log import START_MS, event

GOOD = event(START_MS)
RULES = IntakeRules(slide_ms=10_000, allowed_lateness_ms=5_000, max_future_ms=60_000)


def intake(*values: bytes | None, kafka_ms: int = START_MS, max_bytes: int = 1_048_576) -> Intake:
    decoder = EventDecoder(max_bytes=max_bytes)
    table = SeriesTable(4)
    return take(values, [kafka_ms] * len(values), NO_TIME_MS, rules=RULES, table=table, decoder=decoder)


def reasons(rejects: list[Reject]) -> list[tuple[int, int | None, str, str]]:
    return [(reject.record, reject.item, reject.flaw.stage, reject.flaw.reason) for reject in rejects]


def fields(**changes: Any) -> bytes:
    whole = {"timestamp_ms": START_MS, "service": "a", "latency_ms": 1.0, **changes}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("value", "stage", "reason"),
    [
        (None, "decode", "empty_value"),
        (b"", "decode", "empty_value"),
        (b" \n ", "decode", "empty_value"),
        (b"{", "decode", "malformed_json"),
        (GOOD + b"}", "decode", "malformed_json"),
        (b"\xef\xbb\xbf" + GOOD, "decode", "malformed_json"),
        (GOOD[:-1] + b',"x":NaN}', "decode", "malformed_json"),
        (GOOD[:-1] + b',"x":"\xff"}', "decode", "invalid_utf8"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "decode", "too_deep"),
        (b"3", "decode", "not_an_object"),
        (b"null", "decode", "not_an_object"),
        (fields(timestamp_ms=...), "validate", "missing_field"),
        (fields(service=...), "validate", "missing_field"),
        (fields(latency_ms=...), "validate", "missing_field"),
        (fields(timestamp_ms="now"), "validate", "wrong_type"),
        (fields(timestamp_ms=START_MS + 0.5), "validate", "wrong_type"),
        (fields(timestamp_ms=True), "validate", "wrong_type"),
        (fields(latency_ms="1"), "validate", "wrong_type"),
        (fields(latency_ms=None), "validate", "wrong_type"),
        (fields(service=None), "validate", "wrong_type"),
        (fields(endpoint=7), "validate", "wrong_type"),
        (fields(status="200"), "validate", "wrong_type"),
        (fields(heartbeat="yes"), "validate", "wrong_type"),
        (fields(timestamp_ms=START_MS // 1000), "validate", "timestamp_too_old"),
        (fields(timestamp_ms=-1), "validate", "timestamp_too_old"),
        (fields(timestamp_ms=START_MS + 60_001), "validate", "timestamp_in_future"),
        (fields(timestamp_ms=10**30), "validate", "out_of_range"),
        (fields(latency_ms=-0.001), "validate", "out_of_range"),
        (fields(latency_ms=10**400), "validate", "out_of_range"),
        (fields(status=99), "validate", "out_of_range"),
        (fields(status=600), "validate", "out_of_range"),
        (fields(service=""), "validate", "wrong_length"),
        (fields(service="x" * 129), "validate", "wrong_length"),
        (fields(endpoint="x" * 257), "validate", "wrong_length"),
        (b"x" * 2000, "decode", "too_large"),
    ],
)
def test_bad_value_is_rejected_whole_with_its_reason(value: bytes | None, stage: str, reason: str) -> None:
    got = intake(GOOD, value, GOOD, max_bytes=1000 if reason == "too_large" else 1_048_576)
    assert reasons(got.rejects) == [(1, None, stage, reason)]
    assert got.rejects[0].value == value
    assert got.rejects[0].flaw.message
    assert len(got.columns.code) == 2


@pytest.mark.parametrize(
    "value",
    [
        fields(timestamp_ms=START_MS + 60_000),
        fields(timestamp_ms=946_684_800_000),
        fields(latency_ms=0),
        fields(latency_ms=1e7),
        fields(status=100),
        fields(status=599),
        fields(service="x" * 128, endpoint="y" * 256),
        fields(service="münchen-🚀", endpoint="/ü?|&\n"),
        fields(region="eu", nested={"deep": [1, {"er": None}]}),
        b"\n " + GOOD + b"\r\n",
        json.dumps(json.loads(GOOD), indent=2).encode(),
        b"[" + GOOD + b"]",
    ],
)
def test_unusual_event_counts(value: bytes) -> None:
    got = intake(value)
    assert (len(got.columns.code), got.rejects) == (1, [])


def test_empty_array_is_no_event_and_no_dead_letter() -> None:
    got = intake(b"[]", b" [ ] ")
    assert (len(got.columns.code), got.rejects) == (0, [])


def test_good_items_of_an_array_go_on_and_each_bad_one_is_rejected_with_its_own_bytes() -> None:
    future = event(START_MS + 10**9)
    got = intake(b"[" + b" , ".join([GOOD, b'{"a": 1}', future, GOOD, b"7", GOOD]) + b"]")
    assert len(got.columns.code) == 3
    assert reasons(got.rejects) == [
        (0, 1, "validate", "missing_field"),
        (0, 2, "validate", "timestamp_in_future"),
        (0, 4, "decode", "not_an_object"),
    ]
    assert [reject.value for reject in got.rejects] == [b'{"a": 1}', future, b"7"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (GOOD[:-1] + b',"latency_ms":NaN}', "malformed_json"),
        (GOOD[:-1] + b',"x":-Infinity}', "malformed_json"),
        (fields(endpoint="[\ud800,{"), "malformed_json"),
        (GOOD[:-1] + b',"x":"\xff"}', "invalid_utf8"),
        (b'{"x":' + b"[" * 2_000 + b"]" * 2_000 + b"}", "too_deep"),
        (b"{oops}", "malformed_json"),
        (b'{"x" "y\\",\\""}', "malformed_json"),
    ],
)
def test_good_items_of_an_array_go_on_whatever_the_bad_one_is(bad: bytes, reason: str) -> None:
    got = intake(b" [" + GOOD + b", " + bad + b" ,\n" + GOOD + b" ]\n")
    assert len(got.columns.code) == 2
    assert [(reject.item, reject.flaw.reason, reject.value) for reject in got.rejects] == [(1, reason, bad)]


@pytest.mark.parametrize(
    "value",
    [
        b"[" + GOOD + b",",
        b"[" + GOOD + b",]",
        b"[," + GOOD + b"]",
        b"[" + GOOD,
        b"[" + GOOD + b"]]",
        b"[" + GOOD + b"}",
        b"[" + GOOD + b"][" + GOOD + b"]",
        b"[" + GOOD + b" " + GOOD + b"]",
        b"[{oops}, NaN]",
        b'["x]',
        b"[\n" + GOOD + b",\n" + GOOD,
        b"[" + GOOD + b",\n" + GOOD,
    ],
)
def test_array_that_can_not_be_told_into_items_is_one_dead_letter(value: bytes) -> None:
    got = intake(value)
    assert len(got.columns.code) == 0
    assert [(reject.item, reject.flaw.reason, reject.value) for reject in got.rejects] == [
        (None, "malformed_json", value)
    ]


@pytest.mark.parametrize("unit", [b"a", b'\\"', b"\\\\", b'""', b"[", b"{", b","], ids=repr)
def test_long_string_that_never_ends_is_given_up_within_the_test(unit: bytes) -> None:
    value = b'[1,"' + unit * 200_001 + b"]"
    got = intake(value)
    assert [(reject.item, reject.flaw.reason) for reject in got.rejects] == [(None, "malformed_json")]


@pytest.mark.parametrize("bad", [b"[]", b"[1]", b"[oops", b"[" + GOOD + b"]", b"[12:00:01] INFO started"])
def test_first_line_that_begins_as_an_array_is_a_bad_line_like_any_other(bad: bytes) -> None:
    got = intake(bad + b"\n" + GOOD + b"\r\n" + GOOD)
    assert len(got.columns.code) == 2
    assert [(reject.item, reject.value) for reject in got.rejects] == [(0, bad)]


def test_lines_are_items_and_blank_lines_are_nothing() -> None:
    got = intake(GOOD + b"\r\n\n" + b"oops\n" + b'"\xff"\n' + GOOD + b"\n")
    assert len(got.columns.code) == 2
    assert reasons(got.rejects) == [(0, 1, "decode", "malformed_json"), (0, 2, "decode", "invalid_utf8")]
    assert got.rejects[0].value == b"oops"


def test_lines_of_which_none_is_json_are_one_dead_letter() -> None:
    text = b"Traceback:\n  line 1\n"
    got = intake(text)
    assert [(reject.item, reject.value) for reject in got.rejects] == [(None, text)]


def test_array_of_ten_thousand_events_is_taken_and_a_value_of_the_largest_size_is_looked_into() -> None:
    assert len(intake(b"[" + b",".join([GOOD] * 10_000) + b"]", max_bytes=2_000_000).columns.code) == 10_000
    padded = GOOD[:-1] + b',"pad":"' + b"x" * (1_048_576 - len(GOOD) - 9) + b'"}'
    assert len(padded) == 1_048_576
    assert len(intake(padded).columns.code) == 1


def test_latency_is_counted_in_whole_microseconds() -> None:
    got = intake(*(fields(latency_ms=latency) for latency in (0.0004, 0.0006, 1.2345678, 1e7)))
    assert got.columns.latency_us.tolist() == [0, 1, 1235, 10**10]


def test_heartbeat_moves_time_and_is_counted_nowhere() -> None:
    beat = json.dumps({"timestamp_ms": START_MS + 30_000, "heartbeat": True}).encode()
    got = intake(beat, event(START_MS))
    assert (got.heartbeats, got.late, len(got.columns.code)) == (1, 1, 0)
    assert got.top_ms == got.heartbeat_ms == START_MS + 30_000


def test_event_is_late_only_when_its_pane_ended_before_the_watermark() -> None:
    got = intake(event(START_MS + 14_999), event(START_MS), event(START_MS + 15_000), event(START_MS))
    assert (got.late, len(got.columns.code)) == (1, 3)


def test_rejected_event_does_not_move_time() -> None:
    got = intake(fields(timestamp_ms=START_MS + 50_000, latency_ms=-1), event(START_MS))
    assert (got.top_ms, got.late) == (START_MS, 0)


def test_record_without_kafka_timestamp_may_be_of_any_time() -> None:
    assert not intake(event(START_MS + 10**9), kafka_ms=-1).rejects


@pytest.mark.parametrize("value", [GOOD + GOOD, GOOD + b" " + GOOD, GOOD + b"\r" + GOOD, GOOD + b"\n," + GOOD])
def test_objects_that_only_follow_each_other_are_no_lines(value: bytes) -> None:
    got = intake(value)
    assert [(reject.item, reject.flaw.reason) for reject in got.rejects][-1][1] == "malformed_json"
    assert len(got.columns.code) == value.count(b"\n")


PIECES = st.sampled_from(
    [GOOD, fields(latency_ms=-1), b"\n", b"\r\n", b" ", b"{", b"}", b'{"x":', b"[", b"]", b",", b"3"]
)


@given(st.lists(st.lists(PIECES, max_size=8).map(b"".join), max_size=3))
@settings(max_examples=200)
def test_values_are_the_same_events_whether_taken_at_once_or_item_by_item(values: list[bytes | None]) -> None:
    at_once = EventDecoder(max_bytes=10_000).decode(values)
    one_by_one = EventDecoder(max_bytes=10_000, decode_event=msgspec.json.Decoder(Event).decode).decode(values)
    assert at_once.events == one_by_one.events
    assert reasons(at_once.rejects) == reasons(one_by_one.rejects)
    assert [reject.value for reject in at_once.rejects] == [reject.value for reject in one_by_one.rejects]


def test_what_ends_too_early_is_not_taken_for_what_is_empty_nor_the_other_way_round() -> None:
    got = EventDecoder(max_bytes=1000).decode([b"", b"{", b" ", b"{", None])
    said = [reject.flaw.reason for reject in got.rejects]
    assert said == ["empty_value", "malformed_json", "empty_value", "malformed_json", "empty_value"]


SHAPES = [GOOD, b"[" + GOOD + b"]", b"[" + GOOD + b",1]", b"[]", b"[oops", b"{", b"", b" [1]", GOOD + b"\n" + GOOD]


@given(st.lists(st.binary(max_size=40) | st.sampled_from(SHAPES) | st.none(), max_size=8), st.integers(0, 8))
def test_any_bytes_are_events_or_rejects_and_batches_do_not_matter(values: list[bytes | None], cut: int) -> None:
    decoder = EventDecoder(max_bytes=1000)
    whole, left, right = decoder.decode(values), decoder.decode(values[:cut]), decoder.decode(values[cut:])
    assert whole.events == left.events + right.events
    split = reasons(left.rejects) + [(r.record + min(cut, len(values)), *reasons([r])[0][1:]) for r in right.rejects]
    assert reasons(whole.rejects) == split


@pytest.mark.parametrize(
    ("unit", "time", "latency_unit", "latency"),
    [
        ("s", START_MS / 1000 + 0.25, "s", 0.0125),
        ("us", START_MS * 1000 + 250_999, "us", 12_500),
        ("ns", START_MS * 10**6 + 250_999_999, "ns", 12_500_000),
        ("iso", "2025-11-23T12:13:20.250Z", "ms", 12.5),
        ("iso", "2025-11-23T13:13:20.250999+01:00", "ms", 12.5),
        ("iso", "2025-11-23T12:13:20.25", "ms", 12.5),
        ("iso", "2025-11-23t12:13:20.25z", "ms", 12.5),
        ("ms", START_MS + 250, "ms", 12.5),
    ],
)
def test_foreign_keys_and_units_are_translated(unit: str, time: object, latency_unit: str, latency: float) -> None:
    paths = {"timestamp_ms": "@timestamp", "service": "app.name", "latency_ms": "took", "endpoint": "http.route"}
    decode = mapped_decoder(paths, unit, latency_unit)
    assert decode is not None
    foreign = {"@timestamp": time, "app": {"name": "shop"}, "took": latency, "http.route": "/pay", "status": 503}
    got = decode(json.dumps(foreign).encode())
    assert (got.timestamp_ms, got.latency_ms) == (START_MS + 250, pytest.approx(12.5))
    assert (got.service, got.endpoint, got.status) == ("shop", "/pay", 503)


@pytest.mark.parametrize(
    ("foreign", "reason"),
    [
        ({"t": "yesterday", "service": "a", "latency_ms": 1}, "wrong_type"),
        ({"t": 5, "service": "a", "latency_ms": 1}, "wrong_type"),
        ({"service": "a", "latency_ms": 1}, "missing_field"),
        ({"t": "1970-01-02T00:00:00Z", "service": "a", "latency_ms": 1}, "timestamp_too_old"),
        ({"t": "2025-11-23T12:13:20Z", "service": "a", "latency_ms": "1"}, "wrong_type"),
        (["t"], "not_an_object"),
    ],
)
def test_foreign_event_that_breaks_a_rule_is_rejected(foreign: object, reason: str) -> None:
    decoder = EventDecoder(max_bytes=1000, decode_event=mapped_decoder({"timestamp_ms": "t"}, "iso", "s"))
    value = json.dumps(foreign).encode()
    assert [reject.flaw.reason for reject in decoder.decode([b"[" + value + b"]"]).rejects] == [reason]


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
    | st.sampled_from([10**400, -(10**400), 1e308, -1e308, 2**63, START_MS, "0001-01-01T00:00:00+23:59", "2025-11-23"])
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["t", "took", "service", "status"]), LEAVES | st.lists(LEAVES, max_size=2)),
    st.sampled_from(["ms", "s", "us", "ns", "iso"]),
    st.sampled_from(["ms", "s", "us", "ns"]),
)
def test_foreign_event_is_an_event_or_a_reject_whatever_its_fields_hold(
    foreign: dict[str, object], unit: str, latency_unit: str
) -> None:
    """Numbers that only overflow once they are in milliseconds stopped the flow, and every restart of it."""
    decode = mapped_decoder({"timestamp_ms": "t", "latency_ms": "took"}, unit, latency_unit)
    got = EventDecoder(max_bytes=10_000, decode_event=decode).decode([json.dumps(foreign).encode()])
    assert len(got.events) + len(got.rejects) == 1


@pytest.mark.parametrize("number", [b"1e308", b"-1e308", b"9" * 400])
@pytest.mark.parametrize("field", ["t", "took"])
def test_foreign_number_without_bounds_is_out_of_range(field: str, number: bytes) -> None:
    value = json.dumps({"t": START_MS / 1000, "took": 1, "service": "a", field: 0}).encode()
    value = value.replace(b'"%s": 0' % field.encode(), b'"%s": %s' % (field.encode(), number))
    decode = mapped_decoder({"timestamp_ms": "t", "latency_ms": "took"}, "s", "us")
    rejects = EventDecoder(max_bytes=10_000, decode_event=decode).decode([value]).rejects
    assert [reject.flaw.reason for reject in rejects] == ["out_of_range"]


def test_contract_fields_need_no_translation() -> None:
    assert mapped_decoder({"service": "service"}, "ms", "ms") is None


@pytest.mark.parametrize("bad", [b"\xff", b"{", b"[{]", b"[1,", b'{"a":1}\n\xff', b"[" * 2000, b""])
def test_rejection_leaves_nothing_for_the_collector(bad: bytes) -> None:
    """A kept exception would keep the frames that it passed through, and they the messages of a batch."""
    intake(bad, GOOD)
    gc.collect()
    gc.disable()
    try:
        intake(bad, GOOD, bad)
        assert gc.collect() == 0
    finally:
        gc.enable()

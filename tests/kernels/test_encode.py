from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.encode import CHUNK_ROWS, alert_records, alert_state_records, window_records
from operators.kernels.frames import SIGNALS, STATES, ScoredFrame, Transition, WindowFrame

END_MS = 1_760_000_000_000

WINDOW_FIELDS = [
    "schema",
    "service",
    "endpoint",
    "window_start_ms",
    "window_end_ms",
    "count",
    "errors",
    "error_ratio",
    "rate_per_s",
    "mean_ms",
    "max_ms",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    *(f"{signal}_{part}" for signal in SIGNALS for part in ("score", "expected", "lower", "upper")),
    "state",
]

ALERT_FIELDS = [
    "schema",
    "fingerprint",
    "status",
    "labels",
    "annotations",
    "starts_at_ms",
    "ends_at_ms",
    "window_end_ms",
    "signal",
    "value",
    "expected",
    "score",
    "flapping",
]

FIRING = Transition(
    fingerprint="80415111168109ad",
    status="firing",
    labels={"alertname": "LatencyAnomaly", "service": "checkout", "endpoint": "/påy", "severity": "warning"},
    annotations={
        "summary": "slow",
        "description": "P99 1,240 ms",
        "runbook_url": "http://r",
        "dashboard_url": "http://d",
    },
    starts_at_ms=END_MS - 10_000,
    ends_at_ms=None,
    window_end_ms=END_MS,
    signal="latency",
    value=1_240.0,
    expected=None,
    score=1.3,
    flapping=False,
)
RESOLVED = replace(FIRING, status="resolved", ends_at_ms=END_MS + 90_000, window_end_ms=END_MS + 90_000, score=math.nan)


def frame(*series: tuple[str, str], count: int = 4, end_ms: int = END_MS) -> ScoredFrame:
    n = len(series)
    counts = np.full(n, count, np.int64)
    quantile_us = np.full(n, 1_234.5 if count else math.nan)
    windows = WindowFrame(
        window_start_ms=end_ms - 60_000,
        window_end_ms=end_ms,
        service=[service for service, _ in series],
        endpoint=[endpoint for _, endpoint in series],
        count=counts,
        errors=np.full(n, min(count, 1), np.int64),
        sum_us=counts * 1_001,
        max_us=np.full(n, 2_003 if count else 0, np.int64),
        p50_us=quantile_us,
        p90_us=quantile_us * 2,
        p99_us=quantile_us * 3,
        carry=None,
    )
    score = np.arange(3 * n, dtype=np.float64).reshape(3, n)
    lower = np.full((3, n), math.nan)
    return ScoredFrame(windows, score, score + 100, lower, score + 300, np.arange(n, dtype=np.int8) % len(STATES))


def strict(value: bytes | None) -> dict[str, object]:
    """Parse as a reader does that knows no NaN."""
    assert value is not None

    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    parsed: dict[str, object] = json.loads(value.decode(), parse_constant=refuse)
    return parsed


def test_a_window_record_has_every_field_of_the_contract_in_its_unit() -> None:
    keys, values, ids = window_records([frame(("checkout", "/pay"))])
    record = strict(values[0])
    assert list(record) == WINDOW_FIELDS
    assert keys == [b"checkout|/pay"]
    assert len(ids) == 1
    assert record["schema"] == "window/1"
    assert (record["window_start_ms"], record["window_end_ms"]) == (END_MS - 60_000, END_MS)
    assert (record["count"], record["errors"], record["error_ratio"]) == (4, 1, 0.25)
    assert record["rate_per_s"] == 4 / 60
    assert (record["mean_ms"], record["max_ms"]) == (1.001, 2.003)
    assert (record["p50_ms"], record["p90_ms"], record["p99_ms"]) == pytest.approx((1.2345, 2.469, 3.7035))
    assert (record["latency_score"], record["errors_score"], record["traffic_score"]) == (0.0, 1.0, 2.0)
    assert (record["traffic_expected"], record["traffic_lower"], record["traffic_upper"]) == (102.0, None, 302.0)
    assert record["state"] == "warming"


def test_an_empty_window_has_counts_of_zero_and_nulls_where_nothing_is_known() -> None:
    record = strict(window_records([frame(("a", "/x"), count=0)]).values[0])
    assert (record["count"], record["errors"], record["rate_per_s"]) == (0, 0, 0.0)
    unknown = ("error_ratio", "mean_ms", "max_ms", "p50_ms", "p90_ms", "p99_ms", "latency_lower")
    assert [record[field] for field in unknown] == [None] * len(unknown)


def test_mean_is_unknown_only_where_the_sum_may_have_left_64_bits() -> None:
    longest_us = 10**15
    base = frame(("many", "/x"), ("one", "/x"), ("few", "/x"))
    columns = {
        name: np.array(row)
        for name, row in {
            "count": (10_000, 10_000, 9_000),
            "max_us": (longest_us,) * 3,
            "sum_us": (10_000 * longest_us - 2**64, longest_us + 9_999_000, 9_000 * longest_us),
            "p50_us": (1e15, 1e3, 1e15),
            "p90_us": (1e15, 1e3, 1e15),
            "p99_us": (1e15, 1e3, 1e15),
        }.items()
    }
    scored = replace(base, windows=replace(base.windows, **columns))
    means = [strict(value)["mean_ms"] for value in window_records([scored]).values]
    assert means == [None, (longest_us + 9_999_000) / 10_000 / 1_000, 1e12]


def test_integers_stay_integers_on_the_wire() -> None:
    record = strict(window_records([frame(("a", "/x"))]).values[0])
    assert all(type(record[field]) is int for field in ("window_start_ms", "window_end_ms", "count", "errors"))


def test_infinite_and_unknown_numbers_are_null() -> None:
    scored = frame(("a", "/x"))
    scored.score[:] = math.inf
    scored.upper[:] = -math.inf
    record = strict(window_records([scored]).values[0])
    assert [record[f"{signal}_{part}"] for signal in SIGNALS for part in ("score", "upper")] == [None] * 6


def test_records_keep_the_order_of_frames_and_rows_across_chunks() -> None:
    series = [("svc", f"/{row}") for row in range(2 * CHUNK_ROWS + 7)]
    frames = [frame(*series), frame(), frame(*series[::-1], end_ms=END_MS + 10_000)]
    keys, values, ids = window_records(frames)
    records = [strict(value) for value in values]
    assert [(record["endpoint"], record["window_end_ms"]) for record in records] == [
        *((endpoint, END_MS) for _, endpoint in series),
        *((endpoint, END_MS + 10_000) for _, endpoint in series[::-1]),
    ]
    assert [record["state"] for record in records[: len(STATES)]] == list(STATES)
    assert keys == [f"svc|{record['endpoint']}".encode() for record in records]
    assert len(set(ids)) == len(ids)


def test_no_frame_and_an_empty_frame_give_no_records() -> None:
    assert window_records([]) == ([], [], [])
    assert window_records([frame()]) == ([], [], [])


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), unique=True, max_size=6))
def test_any_name_survives_the_wire_and_has_an_id_of_its_own(series: list[tuple[str, str]]) -> None:
    keys, values, ids = window_records([frame(*series), frame(*series, end_ms=END_MS + 10_000)])
    records = [strict(value) for value in values]
    assert [(record["service"], record["endpoint"]) for record in records] == series * 2
    assert keys == [f"{service}|{endpoint}".encode() for service, endpoint in series * 2]
    assert len(set(ids)) == 2 * len(series)


def test_series_with_the_same_key_have_different_ids() -> None:
    keys, _, ids = window_records([frame(("a", "b|c"), ("a|b", "c"))])
    assert keys[0] == keys[1]
    assert ids[0] != ids[1]


def test_an_id_is_the_same_when_the_record_is_written_again_among_others() -> None:
    alone = window_records([frame(("b", "/y"))])
    beside = window_records([frame(("a", "/x"), ("b", "/y"))])
    assert beside.ids[1] == alone.ids[0]


def test_an_alert_record_has_every_field_of_the_contract() -> None:
    keys, values, ids = alert_records([FIRING])
    record = strict(values[0])
    assert list(record) == ALERT_FIELDS
    assert keys == [b"80415111168109ad"]
    assert ids == [b"80415111168109ad|1759999990000|firing"]
    assert record == {
        "schema": "alert/1",
        **{field: getattr(FIRING, field) for field in ALERT_FIELDS[1:]},
    }


def test_the_two_records_of_an_episode_have_different_ids_and_unknown_numbers_are_null() -> None:
    _, values, ids = alert_records([FIRING, RESOLVED])
    assert ids[0] != ids[1]
    record = strict(values[1])
    assert (record["status"], record["ends_at_ms"], record["score"]) == ("resolved", END_MS + 90_000, None)


def test_alert_state_keeps_what_fires_and_ends_with_a_tombstone() -> None:
    told = alert_records([FIRING, RESOLVED])
    state = alert_state_records([FIRING, RESOLVED])
    assert state.values == [told.values[0], None]
    assert (state.keys, state.ids) == (told.keys, told.ids)


def test_no_transitions_give_no_records() -> None:
    assert alert_records([]) == ([], [], [])
    assert alert_state_records([]) == ([], [], [])

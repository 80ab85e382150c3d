"""Rows of the archive: all that was sent, wherever batches end."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import TYPE_CHECKING

import polars as pl
import pytest

from operators.kernels.archive_rows import (
    HOUR_MS,
    NO_ROWS,
    SCHEMA,
    ArchivedEvent,
    CopiedKeys,
    archive_rows,
    filed,
    hour_name,
)
from operators.kernels.decode import EventDecoder
from operators.kernels.intake import NO_TIME_MS, IntakeRules, take
from operators.kernels.mapping import mapped_decoder
from operators.kernels.series import SeriesTable, shard_of
from tests.archive_log import ArchiveOracle, as_sent, places
from tests.dirty_log import START_MS, dirty_log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.kernels.decode import DecodeEvent

KAFKA_MS = START_MS + HOUR_MS
RULES = IntakeRules(slide_ms=10_000, allowed_lateness_ms=5_000, max_future_ms=60_000)
OWN_NAMES = CopiedKeys({}, "ms", "ms")


def rows_of(
    values: Sequence[bytes | None],
    *,
    cuts: Sequence[int] = (),
    kafka_ms: int = KAFKA_MS,
    decode_event: DecodeEvent | None = None,
    copied: CopiedKeys = OWN_NAMES,
) -> pl.DataFrame:
    """Take the records of one partition in, cut into batches, and give the rows."""
    decoder = EventDecoder(max_bytes=1 << 20, decode_event=decode_event, event_type=ArchivedEvent)
    table, top_ms, parts = SeriesTable(16), NO_TIME_MS, [NO_ROWS]
    edges = [0, *sorted(cuts), len(values)]
    for first, last in pairwise(edges):
        batch, stamps = values[first:last], [kafka_ms] * (last - first)
        got = take(batch, stamps, top_ms, rules=RULES, table=table, decoder=decoder)
        top_ms = got.top_ms
        rows = archive_rows(batch, range(first, last), stamps, 3, got, copied=copied)
        parts += [] if rows is None else [rows]
    return pl.concat(parts)


def one(fields: dict[str, object] | bytes, **options: int) -> dict[str, object]:
    value = fields if isinstance(fields, bytes) else json.dumps({**EVENT, **fields}).encode()
    (row,) = rows_of([value], **options).to_dicts()
    return row


EVENT = {"timestamp_ms": START_MS, "service": "pay", "latency_ms": 1.5}


def test_rows_of_a_dirty_log_are_the_events_as_they_were_sent() -> None:
    oracle, (values,) = ArchiveOracle(), dirty_log(31, partitions=1, records=3000, span_ms=900_000)
    for offset, value in enumerate(values):
        oracle.record(3, offset, value, KAFKA_MS)
    rows = rows_of(values).to_dicts()
    assert places(rows) == sorted(oracle.sent)
    assert {place for place, row in zip(places(rows), rows, strict=True) if row["late"]} == oracle.late_places
    sent = [{"endpoint": "", "status": 200} | oracle.sent[place] for place in places(rows)]
    assert [as_sent(row) for row in rows] == sent


@pytest.mark.parametrize("seed", range(5))
def test_rows_do_not_depend_on_where_batches_end(seed: int) -> None:
    rng = random.Random(seed)
    (values,) = dirty_log(seed, partitions=1, records=400, span_ms=300_000)
    cuts = rng.sample(range(len(values)), rng.randrange(1, 60))
    assert rows_of(values, cuts=cuts).equals(rows_of(values))


def test_what_has_no_column_stays_byte_by_byte() -> None:
    fields = b'"timestamp_ms":1763900000000,"service":"a","latency_ms":1'
    value = b'{%s, "n": 1.5e03, "o" : {"k":[ 1 ]}, "heartbeat":false}' % fields
    assert one(value)["extra"] == '{"n":1.5e03,"o":{"k":[ 1 ]},"heartbeat":false}'
    assert one({})["extra"] is None


def test_events_with_nothing_else_beside_others_that_have_more() -> None:
    plain = json.dumps({**EVENT, "trace_id": "t", "method": "GET"}).encode()
    assert rows_of([plain] * 3)["extra"].to_list() == [None] * 3
    more = json.dumps({**EVENT, "more": None}).encode()
    assert rows_of([plain, more, plain])["extra"].to_list() == [None, '{"more":null}', None]


def test_only_text_is_in_columns_of_text() -> None:
    row = one({"event_id": 7, "trace_id": "t", "region": None, "host": ["h"], "method": "GET"})
    assert [row[name] for name in ("event_id", "trace_id", "region", "host", "method")] == [
        None,
        "t",
        None,
        None,
        "GET",
    ]
    assert json.loads(str(row["extra"])) == {"event_id": 7, "host": ["h"]}


def test_field_that_was_converted_stays_as_it_was_sent_too() -> None:
    fields = {"timestamp_ms": "at", "service": "svc", "latency_ms": "took", "endpoint": "http.path"}
    copied = CopiedKeys(fields, "s", "ms")
    decode = mapped_decoder(fields, "s", "ms", ArchivedEvent)
    value = b'{"at":1763900000.25,"svc":"pay","took":2,"http":{"path":"/x","v":2},"service":"not mine","region":"eu"}'
    (row,) = rows_of([value], decode_event=decode, copied=copied).to_dicts()
    assert (row["timestamp_ms"], row["service"], row["latency_ms"]) == (START_MS + 250, "pay", 2.0)
    assert (row["endpoint"], row["region"]) == ("/x", "eu")
    kept = {"at": 1763900000.25, "http": {"path": "/x", "v": 2}, "service": "not mine"}
    assert json.loads(row["extra"]) == kept


def test_items_keep_their_number_though_others_are_rejected() -> None:
    good = json.dumps(EVENT).encode()
    lines = b"\n".join([b"{", good, b"", b'{"timestamp_ms":5}', good])
    rows = rows_of([b"[" + good + b",3," + good + b"]", good, lines, b"\n" + good + b"\n"])
    found = rows.select("partition", "offset", "item").rows()
    assert found == [(3, 0, 0), (3, 0, 2), (3, 1, 0), (3, 2, 1), (3, 2, 3), (3, 3, 0)]


def test_heartbeats_and_dead_letters_are_no_rows() -> None:
    values = [b'{"timestamp_ms":1763900000000,"heartbeat":true}', b"x", None, b'{"timestamp_ms":1763900000000}']
    assert rows_of(values).is_empty()


def test_record_without_a_kafka_timestamp_has_none() -> None:
    assert one({}, kafka_ms=-1)["kafka_timestamp_ms"] is None
    assert one({})["kafka_timestamp_ms"] == KAFKA_MS


def test_rows_are_filed_by_hour_and_shard_in_their_order() -> None:
    values = [
        json.dumps({**EVENT, "service": s, "timestamp_ms": START_MS - n * HOUR_MS}).encode()
        for n in (0, 1)
        for s in "abab"
    ]
    rows = rows_of(values)
    filing = dict(filed(rows, 16))
    assert sum(map(len, filing.values())) == len(rows)
    name = f"hour={hour_name(START_MS // HOUR_MS)}/shard={shard_of('a', 16):02d}"
    assert name.startswith("hour=2025-11-23T12/")
    assert filing[name]["offset"].to_list() == [0, 2]
    assert list(filing[name].columns) == list(SCHEMA)


def test_hours_of_any_year_have_a_name() -> None:
    assert hour_name(0) == "1970-01-01T00"
    assert hour_name((1 << 61) // HOUR_MS) == "73071226-02-26T19"

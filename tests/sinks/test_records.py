"""Output records: their columns, and their way to another process."""

from __future__ import annotations

import pickle

import pytest

from sinks.records import OutputRecords


def test_records_survive_the_way_to_another_process() -> None:
    records = OutputRecords(
        keys=[b"checkout|/pay", None, b""],
        values=[b'{"p99_ms":1}', b"\xff\x00", None],
        ids=[b"a", b"b", b"c"],
        headers=[[("dlq.error.stage", b"decode")], [("trace", None)], [("trace", b"\xff"), ("trace", b"")]],
        expire_ms=1_700_000_060_000,
    )
    assert pickle.loads(pickle.dumps(records)) == records


def test_records_without_headers_or_rows_survive_too() -> None:
    empty = OutputRecords(keys=[], values=[], ids=[], headers=None, expire_ms=-1)
    assert pickle.loads(pickle.dumps(empty)) == empty
    assert len(empty) == 0


def test_columns_of_different_length_are_refused_before_a_record_is_lost() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        OutputRecords(keys=[b"k"], values=[b"v", b"w"], ids=[b"1", b"2"], headers=None, expire_ms=0)
    with pytest.raises(ValueError, match="differ in length"):
        OutputRecords(keys=[b"k"], values=[b"v"], ids=[b"1"], headers=[], expire_ms=0)

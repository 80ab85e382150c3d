"""What must be in an archive, read from the log by the oracle, and what is in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from operators.kernels.archive_rows import SCHEMA
from tests.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Place = tuple[int, int, int]
"""Partition, offset and item."""

TEXTS = ("event_id", "trace_id", "region", "host", "method")
OWN = ("timestamp_ms", "service", "endpoint", "latency_ms", "status", *TEXTS)


class ArchiveOracle(Oracle):
    """Collects what producers sent, event by event.

    Attributes:
        sent: The object that was sent, by its place.
        late_places: Places of events that were late.
    """

    def __init__(self, **rules: int) -> None:
        super().__init__(**rules)
        self.sent: dict[Place, dict[str, Any]] = {}
        self.late_places: set[Place] = set()

    def record(self, partition: int, offset: int, value: bytes | None, kafka_ms: int) -> None:
        """Read one record, in the order of its partition."""
        for number, item in self._items(value) or ():
            event = self._event(item, kafka_ms)
            before = self.late
            if event is not None:
                self._count(partition, event)
            if event is not None and event.get("heartbeat") is not True:
                place = (partition, offset, number or 0)
                self.sent[place] = event
                if self.late > before:
                    self.late_places.add(place)


def scan(path: Path) -> pl.LazyFrame:
    """Scan an archive the way the guide says."""
    return pl.scan_parquet(path, hive_partitioning=True)


def as_sent(row: dict[str, Any]) -> dict[str, Any]:
    """Put an event together again from its row."""
    event = {name: row[name] for name in OWN if row[name] is not None}
    return event | (json.loads(row["extra"]) if row["extra"] is not None else {})


def places(rows: Iterable[dict[str, Any]]) -> list[Place]:
    """List the places of rows."""
    return [(row["partition"], row["offset"], row["item"]) for row in rows]


def assert_holds(path: Path, oracle: ArchiveOracle) -> None:
    """Check that an archive holds every valid event once, as it was sent, where it belongs."""
    frame = scan(path).collect()
    assert list(frame.columns) == [*SCHEMA, "hour", "shard"]
    rows = frame.to_dicts()
    found = places(rows)
    assert len(set(found)) == len(found), "twice"
    assert set(found) == set(oracle.sent)
    assert {place for place, row in zip(found, rows, strict=True) if row["late"]} == oracle.late_places
    for place, row in zip(found, rows, strict=True):
        sent = {"endpoint": "", "status": 200} | oracle.sent[place]
        assert as_sent(row) == {key: value for key, value in sent.items() if value is not None}, place


def files(path: Path) -> set[str]:
    """List the files that readers see."""
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}

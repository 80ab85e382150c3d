"""Recordings of a fake world as tables, to look at what is in them."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import polars as pl

from simulator.disorder import NONE
from simulator.encode import CONTENTS
from simulator.incidents import Incident
from simulator.requests import STATUSES, concat, draw
from simulator.stream import Chunk, Plan, record
from simulator.world import World

START_MS = 1_767_225_600_000 + 10 * 3_600_000
"""Ten in the morning, in UTC."""

MINUTE_MS = 60_000
PARTITIONS = 4
STRETCH_MS = 10_000
FIRST_ERROR_STATUS = 500


def plan(**changes: Any) -> Plan:
    """Plan a calm and clean minute, unless told otherwise."""
    usual: dict[str, Any] = {
        "start_ms": START_MS,
        "duration_ms": MINUTE_MS,
        "scenario": "calm",
        "disturbances": NONE,
        "heartbeat_ms": 0,
    }
    return Plan(**{**usual, **changes})


def rows(chunks: Iterable[Chunk]) -> Iterator[tuple[int, int, bytes | None, bytes]]:
    """Give partition, arrival, key and value of every record, in order."""
    for chunk in chunks:
        part = chunk.records
        yield from zip(part.partitions, part.arrival_ms, part.keys, part.values, strict=True)


def values(chunks: Iterable[Chunk]) -> list[bytes]:
    """Give the value of every record, in order."""
    return [value for _, _, _, value in rows(chunks)]


def items(value: bytes) -> list[dict[str, Any]]:
    """Decode a value of any encoding, which must be well formed."""
    if value.startswith(b"["):
        found: list[dict[str, Any]] = json.loads(value)
        return found
    return [json.loads(line) for line in value.splitlines()]


def events(chunks: Iterable[Chunk]) -> pl.DataFrame:
    """Give every event of a clean recording as a row."""
    return pl.DataFrame(list(chain.from_iterable(items(value) for value in values(chunks))))


def record_events(**changes: Any) -> pl.DataFrame:
    """Record a world and give its events."""
    return events(record(plan(**changes), PARTITIONS))


def contents(chunks: Iterable[Chunk]) -> dict[str, int]:
    """Add up what the records hold."""
    sums = np.sum([chunk.records.contents.sum(axis=0) for chunk in chunks], axis=0)
    return dict(zip(CONTENTS, sums.tolist(), strict=True))


def drawn(world: World, length_ms: int, incidents: Iterable[Incident] = (), start_ms: int = START_MS) -> pl.DataFrame:
    """Draw the requests of a world as a table, without encoding and decoding them."""
    rng = np.random.default_rng(5)
    listed = list(incidents)
    begins = range(start_ms, start_ms + length_ms, STRETCH_MS)
    requests = concat([draw(world, listed, begin, begin + STRETCH_MS, rng) for begin in begins])
    table = {
        "at_ms": requests.timestamp_ms,
        "service": np.array(world.services)[world.service[requests.series]],
        "endpoint": np.array(world.endpoint)[requests.series],
        "latency_us": requests.latency_us,
        "status": np.array(STATUSES)[requests.status],
    }
    return pl.DataFrame(table).with_columns(
        series=pl.format("{}|{}", "service", "endpoint"), error=pl.col("status") >= FIRST_ERROR_STATUS
    )

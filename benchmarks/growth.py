"""What an hour of churn leaves behind: the recovery directory and the memory of a flow whose series come and go.

An hour of event time is played ten times faster than it would pass, with ten times as many snapshots a minute, so that
there are as many as in an hour. Ten thousand series live at a time; each minute one in twenty is replaced by a new one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec
from confluent_kafka import Producer

from benchmarks.cluster import PARTITIONS
from benchmarks.flow_run import FlowRun
from benchmarks.load import SLIDE_MS
from benchmarks.processes import BenchmarkError
from benchmarks.report import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench

SERVICES, ENDPOINTS = 100, 100
SLIDES: Final = 360
"""An hour of event time."""

SLIDES_A_MINUTE: Final = 6
REPLACED: Final = 20
"""One in so many endpoints is new each minute."""

EPOCH_S: Final = 1
PACE_S: Final = 1.0
"""Seconds that a slide takes."""

SETTLED_SLIDE: Final = 90
"""A quarter of an hour: longer than a silent series lives, so what grows after it grows for ever."""

GROWTH_TARGET: Final = 1.5
_FLUSH_TIMEOUT_S: Final = 30.0


def run(bench: Bench) -> list[Figure]:
    """Play the hour."""
    topic = bench.cluster.create("growth")
    flow = FlowRun(bench.cluster, topic, epoch_s=EPOCH_S)
    producer = Producer({**bench.cluster.client, "linger.ms": 5})
    start_ms = int(time.time() * 1000) // SLIDE_MS * SLIDE_MS - SLIDES * SLIDE_MS
    disk_mib: list[float] = []
    memory_mib: list[float] = []
    child = flow.start()
    try:
        began_s = time.monotonic()
        for slide in range(SLIDES):
            if slide % (SLIDES // 6) == 0:
                bench.say(f"growth: minute {slide // SLIDES_A_MINUTE} of {SLIDES // SLIDES_A_MINUTE}")
            for partition, value in _records(start_ms, slide):
                producer.produce(topic, value, partition=partition)
            if producer.flush(_FLUSH_TIMEOUT_S):
                raise BenchmarkError(f"`{topic}` took no records within {_FLUSH_TIMEOUT_S:.0f} s")
            time.sleep(max(0.0, began_s + (slide + 1) * PACE_S - time.monotonic()))
            child.check()
            disk_mib.append(_size_mib(flow.recovery))
            memory_mib.append(child.resident_bytes() / 2**20)
    finally:
        child.kill()
        flow.clean()
        bench.cluster.delete([topic])
    series = f"{SERVICES * ENDPOINTS:,} live series, {SERVICES * ENDPOINTS // REPLACED:,} new ones a minute"
    return [
        *_figures("recovery directory", disk_mib, series),
        *_figures("resident memory", memory_mib, series),
    ]


def _records(start_ms: int, slide: int) -> Iterator[tuple[int, bytes]]:
    """Make the records of a slide: one event of each live series, a record a service, and a heartbeat a partition."""
    minute, at_ms = slide // SLIDES_A_MINUTE, start_ms + slide * SLIDE_MS
    for partition in range(PARTITIONS):
        yield partition, msgspec.json.encode({"timestamp_ms": at_ms, "heartbeat": True})
    for service in range(SERVICES):
        # An endpoint is replaced every `REPLACED` minutes, and each minute it is another twentieth's turn.
        events = [
            {
                "timestamp_ms": at_ms,
                "service": f"service-{service:03d}",
                "endpoint": f"/route/{endpoint:03d}/{(minute + endpoint) // REPLACED:02d}",
                "latency_ms": 5.0 + (slide * 7 + endpoint * 13 + service) % 40,
            }
            for endpoint in range(ENDPOINTS)
        ]
        yield service % PARTITIONS, msgspec.json.encode(events)


def _size_mib(directory: Path) -> float:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # SQLite removes its own journals
    return total / 2**20


def _figures(what: str, sizes_mib: list[float], series: str) -> list[Figure]:
    settled, last = max(sizes_mib[: SETTLED_SLIDE + 1]), max(sizes_mib[-SLIDES_A_MINUTE:])
    return [
        Figure(
            "growth", f"{what} after an hour beside that after a quarter", last / settled, "x", GROWTH_TARGET, series
        ),
        Figure("growth", f"{what} after an hour", last, "MiB", None, f"{SLIDES} slides, a snapshot each"),
    ]

"""How long nothing comes out after the flow was killed, and what a snapshot costs.

The flow is caught up and has taken a snapshot. It is halted, traffic that completes one more window arrives, and it is
killed and started again at once: from the kill to the first record of that window, start-up of Python included.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec
from confluent_kafka import Consumer, TopicPartition

from benchmarks.cluster import PARTITIONS
from benchmarks.flow_run import FlowRun
from benchmarks.load import SLIDE_MS, Load, Published, publish
from benchmarks.processes import BenchmarkError
from benchmarks.report import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

SERIES: Final = ((50, 20), (1_000, 100))
"""Services and endpoints: 1,000 and 100,000 series."""

EVENTS_A_SERIES: Final = 2
"""In each slide."""

PANES: Final = 3
EPOCH_S: Final = 5
SNAPSHOTS: Final = 2
"""How many are watched after the flow is back."""

_TIMEOUT_S: Final = 180.0
_POLL_S: Final = 0.1


class _Window(msgspec.Struct, gc=False):
    window_end_ms: int


def run(bench: Bench) -> list[Figure]:
    """Measure with few and with many series."""
    return [figure for services, endpoints in SERIES for figure in _measure(bench, services, endpoints)]


def _measure(bench: Bench, services: int, endpoints: int) -> list[Figure]:
    series = services * endpoints
    first = Load(
        name=f"recovery-{series}",
        events=EVENTS_A_SERIES * series * PANES,
        rate_per_s=EVENTS_A_SERIES * series * 1000 / SLIDE_MS,
        services=services,
        endpoints=endpoints,
        ends_with_heartbeats=True,
    )
    bench.say(f"recovery: publishing {series:,} series")
    published = publish(bench.cluster, first)
    start_ms = published.start_ms + first.duration_ms
    more = replace(first, events=EVENTS_A_SERIES * series, start_ms=start_ms)
    report = bench.cluster.directory / f"recovery-{series}.json"
    flow = FlowRun(bench.cluster, published.topic, epoch_s=EPOCH_S)
    try:
        bench.say(f"recovery: killing the flow at {series:,} series")
        back_s = _kill_and_come_back(bench, flow, published, more, report)
        snapshot_mib = _snapshot_bytes(flow.recovery) / 2**20
        stored_mib = sum(path.stat().st_size for path in flow.recovery.rglob("*") if path.is_file()) / 2**20
    finally:
        flow.clean()
        bench.cluster.delete([published.topic])
    stalls_s = json.loads(report.read_text(encoding="utf-8"))["stalls_s"]
    what = f"{series:,} series"
    return [
        Figure("recovery", f"from SIGKILL to the first new window, {what}", back_s, "s"),
        Figure("recovery", f"snapshot, {what}", snapshot_mib, "MiB", None, f"{stored_mib:,.0f} MiB on disk"),
        Figure(
            "recovery",
            f"longest stall of a snapshot, {what}",
            max(stalls_s, default=0.0),
            "s",
            None,
            f"{len(stalls_s)} snapshots, {EPOCH_S} s apart",
        ),
    ]


def _kill_and_come_back(bench: Bench, flow: FlowRun, published: Published, more: Load, report: Path) -> float:
    """Return the seconds from the kill to the first new window, and leave the report of the second run behind."""
    child = flow.start()
    try:
        with flow.reader() as reader:
            reader.wait_for(sum(published.series_at), child)
            _wait_for_snapshot(bench, flow)
            child.signal(signal.SIGSTOP)
            publish(bench.cluster, more, topic=published.topic)
            killed_s = time.monotonic()
            child.kill()
            flow.runner = ("-m", "benchmarks.watched", str(report))
            child = flow.start()
            decode = msgspec.json.Decoder(_Window).decode
            end_ms = more.start_ms + more.duration_ms
            for messages in reader.batches(child, 0.005):
                if any(decode(message.value() or b"").window_end_ms == end_ms for message in messages):
                    break
                if time.monotonic() > killed_s + _TIMEOUT_S:
                    raise BenchmarkError(f"no new window within {_TIMEOUT_S:.0f} s of the kill")
            back_s = time.monotonic() - killed_s
        time.sleep(SNAPSHOTS * EPOCH_S + 2)
        child.signal(signal.SIGTERM)
        child.wait()
    finally:
        child.kill()
    return back_s


def _wait_for_snapshot(bench: Bench, flow: FlowRun) -> None:
    """Wait until the snapshot of everything that was read is durable: then its offsets are mirrored to the group.

    Raises:
        BenchmarkError: They never were.
    """
    consumer = Consumer({**bench.cluster.client, "group.id": flow.environment["TAILMARK_KAFKA__GROUP_ID"]})
    partitions = [TopicPartition(flow.events, partition) for partition in range(PARTITIONS)]
    deadline = time.monotonic() + _TIMEOUT_S
    try:
        ends = [consumer.get_watermark_offsets(partition, timeout=30)[1] for partition in partitions]
        while [partition.offset for partition in consumer.committed(partitions, timeout=30)] != ends:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the flow took no snapshot within {_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)
    finally:
        consumer.close()


def _snapshot_bytes(recovery: Path) -> int:
    """Add up the latest state of every step and key."""
    total = 0
    latest = "SELECT length(ser_change), max(snap_epoch) FROM snaps GROUP BY step_id, state_key"
    for path in recovery.rglob("*.sqlite3"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            total += sum(size or 0 for size, _ in db.execute(latest))
    return total

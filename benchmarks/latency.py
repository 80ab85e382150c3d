"""How long a result takes: from the append of the event that closes a window until the window can be read.

The broker stamps each event when it appends it. A window is closed by the last partition whose event time passes its
end and the allowed lateness; from the stamp of that event, on the broker's clock, to the moment at which a
read_committed consumer on the same machine has the record. Windows slide by a second, so that many of them close in a
minute, at every phase of an epoch.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.cluster import PARTITIONS
from benchmarks.flow_run import FlowRun
from benchmarks.live import LiveTraffic
from benchmarks.load import LATENESS_MS
from benchmarks.processes import BenchmarkError
from benchmarks.report import Figure
from simulator.world import load_factor

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.cluster import Cluster
    from benchmarks.processes import Child

RATE_PER_S: Final = 5_000.0
SERVICES, ENDPOINTS = 40, 5
SLIDE_MS: Final = 1_000
LENGTH_MS: Final = 10_000
P99_TARGET_MS: Final = 250.0
WARM_WINDOWS: Final = 15
"""Window ends that are left out at the beginning: the flow starts, and connects to every partition."""

_ARRIVES_S: Final = 0.002
_READ_TIMEOUT_S: Final = 120.0

Arrivals = dict[int, list[float]]
"""When the records of each window end arrived, milliseconds of the clock."""


class _Window(msgspec.Struct, gc=False):
    window_end_ms: int


class _Event(msgspec.Struct, gc=False):
    timestamp_ms: int


def run(bench: Bench) -> list[Figure]:
    """Measure with live traffic."""
    return measure(bench, ("-m", "bytewax.run"))


def measure(bench: Bench, runner: tuple[str, ...]) -> list[Figure]:
    """Measure the flow as a program runs it.

    Args:
        bench: Where, and for how long.
        runner: The program, as in `FlowRun`.

    Returns:
        The 99th percentile first.
    """
    cluster = bench.cluster
    topic = cluster.create("latency", message_timestamp_type="LogAppendTime")
    settings = {"TAILMARK_WINDOW__SLIDE_MS": str(SLIDE_MS), "TAILMARK_WINDOW__LENGTH_MS": str(LENGTH_MS)}
    flow = FlowRun(cluster, topic, settings, runner=runner)
    child = flow.start()
    rate_per_s = RATE_PER_S / load_factor(time.time() * 1000)
    try:
        with LiveTraffic(flow.environment, rate_per_s=rate_per_s, services=SERVICES, endpoints=ENDPOINTS):
            bench.say(f"latency: watching {RATE_PER_S:,.0f} events a second for {bench.seconds} s")
            arrivals = _arrivals(flow, child, bench.seconds)
    finally:
        child.kill()
    try:
        return _figures(arrivals, _closings(cluster, topic, list(arrivals)))
    finally:
        flow.clean()
        cluster.delete([topic])


def _arrivals(flow: FlowRun, child: Child, seconds: int) -> Arrivals:
    """Read windows as they come."""
    arrivals: Arrivals = {}
    decode = msgspec.json.Decoder(_Window).decode
    stop_s: float | None = None
    with flow.reader() as reader:
        for messages in reader.batches(child, _ARRIVES_S):
            now_s = time.time()
            for message in messages:
                arrivals.setdefault(decode(message.value() or b"").window_end_ms, []).append(now_s * 1000)
            if stop_s is None and len(arrivals) > WARM_WINDOWS:
                stop_s = now_s + seconds
            if stop_s is not None and now_s > stop_s:
                break
    # The last one may have been cut off, and the first ones were written while everything was still starting.
    return {end_ms: arrivals[end_ms] for end_ms in sorted(arrivals)[WARM_WINDOWS:-1]}


def _closings(cluster: Cluster, topic: str, ends_ms: list[int]) -> dict[int, int]:
    """Find when the event that closes each window was appended, milliseconds of the broker's clock."""
    consumer = Consumer({**cluster.client, "group.id": "tailmark-bench-latency", "fetch.queue.backoff.ms": 10})
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    decode = msgspec.json.Decoder(_Event).decode
    wanted_ms = np.array(sorted(ends_ms))
    passed = np.zeros((PARTITIONS, len(wanted_ms)), np.int64)
    reached = [0] * PARTITIONS
    deadline = time.monotonic() + _READ_TIMEOUT_S
    try:
        while min(reached) < len(wanted_ms):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"`{topic}` does not reach the end of the windows that were read")
            for message in consumer.consume(10_000, 0.5):
                value, partition = message.value(), message.partition()
                if message.error() is not None or value is None or partition is None:
                    continue
                upto = int(np.searchsorted(wanted_ms, decode(value).timestamp_ms - LATENESS_MS, side="right"))
                if upto > reached[partition]:
                    passed[partition, reached[partition] : upto] = message.timestamp()[1]
                    reached[partition] = upto
    finally:
        consumer.close()
    return dict(zip(wanted_ms.tolist(), passed.max(axis=0).tolist(), strict=True))


def _figures(arrivals: Arrivals, closings: dict[int, int]) -> list[Figure]:
    delays_ms = np.array([at_ms - closings[end_ms] for end_ms, times in arrivals.items() for at_ms in times])
    last_ms = np.array([max(times) - closings[end_ms] for end_ms, times in arrivals.items()])
    p50, p99 = np.percentile(delays_ms, [50, 99])
    note = f"{len(delays_ms):,} records of {len(arrivals)} window ends, slide {SLIDE_MS} ms"
    return [
        Figure(
            "latency", f"99th percentile at {RATE_PER_S:,.0f} events a second", float(p99), "ms", P99_TARGET_MS, note
        ),
        Figure("latency", "median", float(p50), "ms"),
        Figure("latency", "median of the last record of each window end", float(np.median(last_ms)), "ms"),
        Figure("latency", "worst record", float(delays_ms.max()), "ms"),
    ]

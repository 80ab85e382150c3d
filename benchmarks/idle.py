"""What the flow costs when hardly anything happens: ten events a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from benchmarks.flow_run import FlowRun
from benchmarks.live import LiveTraffic
from benchmarks.report import Figure

if TYPE_CHECKING:
    from benchmarks.bench import Bench

RATE_PER_S: Final = 10.0
CPU_TARGET: Final = 5.0
SETTLE_S: Final = 12.0
"""Long enough for the start, with everything that it compiles and connects, and for a first snapshot."""


def run(bench: Bench) -> list[Figure]:
    """Measure the CPU time of the flow over a while."""
    topic = bench.cluster.create("idle")
    flow = FlowRun(bench.cluster, topic)
    child = flow.start()
    try:
        with LiveTraffic(flow.environment, rate_per_s=RATE_PER_S, services=4, endpoints=5):
            bench.say(f"idle: watching for {bench.seconds} s")
            time.sleep(min(SETTLE_S, bench.seconds))
            child.check()
            began_s, cpu_s = time.monotonic(), child.cpu_s()
            time.sleep(bench.seconds)
            child.check()
            share = 100 * (child.cpu_s() - cpu_s) / (time.monotonic() - began_s)
            resident_mib = child.resident_bytes() / 2**20
    finally:
        child.kill()
        flow.clean()
        bench.cluster.delete([topic])
    note = f"over {bench.seconds} s, 4 partitions with a heartbeat a second each, a snapshot every {flow.epoch_s} s"
    return [
        Figure("idle", f"CPU of one core at {RATE_PER_S:.0f} events a second", share, "%", CPU_TARGET, note),
        Figure("idle", "resident memory then", resident_mib, "MiB"),
    ]

"""What an event costs: the flow beside a consumer that does nothing, on the same topic, run in turns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from benchmarks.flow_run import FlowRun
from benchmarks.load import Load, Published, publish
from benchmarks.processes import Child, Usage
from benchmarks.report import Figure, median, spread

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.cluster import Cluster

RATE_PER_S: Final = 5_000.0
"""Events a second of event time: that of the latency target, 25 a second for each of 200 series."""

SINGLE: Final = Load(name="single", events=1_000_000, rate_per_s=RATE_PER_S, services=40, endpoints=5)
ARRAYS: Final = replace(SINGLE, name="arrays", encoding="array")

CPU_TARGET: Final = 2.5
ARRAYS_TARGET: Final = 60.0


@dataclass(frozen=True, slots=True)
class Startup:
    """What starting and ending costs, on an empty topic.

    Attributes:
        flow: Of the flow.
        consumer: Of the consumer that does nothing.
    """

    flow: Usage
    consumer: Usage


def flow_to_the_end(cluster: Cluster, topic: str) -> Usage:
    """Run the flow over a topic with nothing left behind."""
    run = FlowRun(cluster, topic)
    try:
        return run.to_the_end()
    finally:
        run.clean()


def consumer_to_the_end(cluster: Cluster, topic: str) -> Usage:
    """Consume a topic and do nothing."""
    return Child(["-m", "benchmarks.reference", cluster.servers, topic], {}).wait()


def letters_to_the_end(cluster: Cluster, topic: str, letters: str) -> Usage:
    """Write dead letters of what a topic has of them, and do nothing else."""
    return Child(["-m", "benchmarks.bare_letters", cluster.servers, topic, letters], {}).wait()


def measure_startup(bench: Bench) -> Startup:
    """Measure both programs on an empty topic of the same shape, in turns; the median of each.

    The result is kept: every part takes the same off.
    """
    if bench.startup is None:
        empty = bench.cluster.create("empty")
        flows, consumers = [], []
        for _ in range(bench.runs):
            flows.append(flow_to_the_end(bench.cluster, empty))
            consumers.append(consumer_to_the_end(bench.cluster, empty))
        bench.startup = Startup(_median_usage(flows), _median_usage(consumers))
    return bench.startup


def _median_usage(usages: list[Usage]) -> Usage:
    return Usage(
        median([usage.cpu_s for usage in usages]),
        median([usage.wall_s for usage in usages]),
        max(usage.peak_bytes for usage in usages),
    )


def run(bench: Bench) -> list[Figure]:
    """Measure single events and arrays of 100."""
    bench.say("throughput: publishing single events and arrays")
    single = publish(bench.cluster, bench.scaled(SINGLE))
    arrays = publish(bench.cluster, bench.scaled(ARRAYS))
    startup = measure_startup(bench)
    consumers, singles, batched = [], [], []
    for number in range(bench.runs):
        bench.say(f"throughput: run {number + 1} of {bench.runs}")
        consumers.append(consumer_to_the_end(bench.cluster, single.topic).without(startup.consumer))
        singles.append(flow_to_the_end(bench.cluster, single.topic).without(startup.flow))
        batched.append(flow_to_the_end(bench.cluster, arrays.topic).without(startup.flow))
    bench.cluster.delete([single.topic, arrays.topic])
    return _figures(single, arrays, consumers, singles, batched)


def _figures(
    single: Published, arrays: Published, consumers: list[Usage], singles: list[Usage], batched: list[Usage]
) -> list[Figure]:
    cpu = [flow.cpu_s / nothing.cpu_s for flow, nothing in zip(singles, consumers, strict=True)]
    wall = [flow.wall_s / nothing.wall_s for flow, nothing in zip(singles, consumers, strict=True)]
    shares = [
        100 * (many.cpu_s / arrays.events) / (one.cpu_s / single.events)
        for many, one in zip(batched, singles, strict=True)
    ]
    windows = f"{single.windows_at_end / single.events:.4f} window records an event"
    flow_us = median([usage.cpu_s for usage in singles]) / single.events * 1e6
    consumer_us = median([usage.cpu_s for usage in consumers]) / single.records * 1e6
    return [
        Figure(
            "throughput",
            f"CPU beside consuming and doing nothing, {single.load.series} series",
            median(cpu),
            "x",
            CPU_TARGET,
            f"{single.events:,} single events; {spread(cpu)}; {windows}",
        ),
        Figure("throughput", "wall time beside the same", median(wall), "x", None, spread(wall)),
        Figure(
            "throughput",
            "CPU an event in arrays of 100, of that of a single one",
            median(shares),
            "%",
            ARRAYS_TARGET,
            f"{arrays.events / arrays.records:.0f} events a record; {spread(shares)}",
        ),
        Figure("throughput", "CPU a single event", flow_us, "µs", None, "on this machine, now"),
        Figure("throughput", "CPU of consuming it", consumer_us, "µs", None, "on this machine, now"),
    ]

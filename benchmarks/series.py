"""What an event costs when it comes from one of many series.

Each live series writes one window record a slide, whatever it receives, so a cost an event depends on how many events a
series sends in a slide. Two are put beside each other: the load of the throughput, 200 series of 25 requests a second;
and 200 series that send in one slide what 100,000 series send in it at one request a second, so that they write nearly
no records for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.flow_run import FlowRun
from benchmarks.load import SLIDE_MS, Load, Published, publish
from benchmarks.report import Figure, median, spread
from benchmarks.throughput import SINGLE, flow_to_the_end, measure_startup

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.cluster import Cluster
    from benchmarks.processes import Usage

RATE_PER_S: Final = 100_000.0
"""Events a second of event time. Each live series writes one record a slide whatever it receives, so this rate decides
how many records an event pays for: at 100,000 series each sends one request a second, ten a slide."""

COST_TARGET: Final = 1.5
MEMORY_TARGET_GIB: Final = 2.0
MANY: Final = 100_000


def load(services: int, endpoints: int) -> Load:
    """Describe a million events over so many series."""
    return Load(
        name=f"series-{services * endpoints}",
        events=1_000_000,
        rate_per_s=RATE_PER_S,
        services=services,
        endpoints=endpoints,
        ends_with_heartbeats=True,
    )


LOADS: Final = (load(40, 5), load(200, 50), load(1_000, 100))


def flow_through_panes(cluster: Cluster, published: Published) -> Usage:
    """Run the flow until the last pane's windows are written; those that are still open stay open, as they would."""
    run = FlowRun(cluster, published.topic)
    try:
        return run.until(sum(published.series_at))
    finally:
        run.clean()


def run(bench: Bench) -> list[Figure]:
    """Measure the load of the throughput, then 200, 10,000 and 100,000 series, in turns."""
    bench.say("series: publishing")
    usual = publish(bench.cluster, bench.scaled(SINGLE))
    topics = [publish(bench.cluster, bench.scaled(wanted)) for wanted in LOADS]
    startup = measure_startup(bench).flow
    usual_us: list[float] = []
    used: list[list[Usage]] = [[] for _ in topics]
    closing: list[Usage] = []
    for number in range(bench.runs):
        bench.say(f"series: run {number + 1} of {bench.runs}")
        usual_us.append(_event_us(flow_to_the_end(bench.cluster, usual.topic).without(startup), usual))
        for usages, published in zip(used, topics, strict=True):
            usages.append(flow_through_panes(bench.cluster, published).without(startup))
    bench.say("series: once more, closing the open windows")
    closing = [flow_to_the_end(bench.cluster, published.topic).without(startup) for published in topics]
    bench.cluster.delete([usual.topic, *(published.topic for published in topics)])
    few_us, *others_us = (
        [_event_us(usage, published) for usage in usages] for usages, published in zip(used, topics, strict=True)
    )
    figures = []
    for number, costs_us in enumerate(others_us, start=1):
        closed = _event_us(closing[number], topics[number]) / _event_us(closing[0], topics[0])
        figures += _figures(topics[number], costs_us, usual_us, few_us, closed)
    peak_gib = max(usage.peak_bytes for usage in [*used[-1], closing[-1]]) / 2**30
    note = f"the largest of {len(used[-1]) + 1} runs; {startup.peak_bytes / 2**30:.2f} GiB on an empty topic"
    what = f"resident memory at {topics[-1].load.series:,} series"
    return [*figures, Figure("series", what, peak_gib, "GiB", MEMORY_TARGET_GIB, note)]


def _event_us(usage: Usage, published: Published) -> float:
    return usage.cpu_s / published.events * 1e6


def _figures(
    published: Published, costs_us: list[float], usual_us: list[float], few_us: list[float], closed: float
) -> list[Figure]:
    """Put the cost of an event of one load beside that of others, run by run."""
    series = published.load.series
    slides = published.load.duration_ms / SLIDE_MS
    density = f"{published.events / slides / series:,.0f} events a series a slide"
    records = f"{sum(published.series_at) / published.events:.3f} window records an event"
    beside_usual = [cost / beside for cost, beside in zip(costs_us, usual_us, strict=True)]
    beside_few = [cost / beside for cost, beside in zip(costs_us, few_us, strict=True)]
    return [
        Figure(
            "series",
            f"CPU an event at {series:,} series beside the single events of the throughput",
            median(beside_usual),
            "x",
            COST_TARGET if series >= MANY else None,
            f"{density}, {records}; {spread(beside_usual)}",
        ),
        Figure(
            "series",
            f"the same beside {LOADS[0].series} series that send it in the same slide",
            median(beside_few),
            "x",
            None,
            spread(beside_few),
        ),
        Figure(
            "series",
            f"the same with every open window closed at the end, {series:,} series",
            closed,
            "x",
            None,
            f"{published.windows_at_end / published.events:.3f} window records an event; one run",
        ),
    ]

"""What an event costs when it comes from one of many series, at the same rate of event time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.flow_run import FlowRun
from benchmarks.load import SLIDE_MS, Load, Published, publish
from benchmarks.report import Figure, median, spread
from benchmarks.throughput import flow_to_the_end, measure_startup

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
    """Measure 200, 10,000 and 100,000 series in turns."""
    topics = []
    for wanted in LOADS:
        bench.say(f"series: publishing {wanted.series:,} series")
        topics.append(publish(bench.cluster, bench.scaled(wanted)))
    startup = measure_startup(bench).flow
    used: list[list[Usage]] = [[] for _ in topics]
    closing: list[list[Usage]] = [[] for _ in topics]
    for number in range(bench.runs):
        bench.say(f"series: run {number + 1} of {bench.runs}")
        for usages, published in zip(used, topics, strict=True):
            usages.append(flow_through_panes(bench.cluster, published).without(startup))
    bench.say("series: once more, closing the open windows")
    for usages, published in zip(closing, topics, strict=True):
        usages.append(flow_to_the_end(bench.cluster, published.topic).without(startup))
    bench.cluster.delete([published.topic for published in topics])
    few, *others = range(len(topics))
    figures = []
    for number in others:
        figures += _figures(topics[number], _costs(topics, used, number, few), used[number], startup)
        figures.append(_closing(topics[number], _costs(topics, closing, number, few)[0]))
    return figures


def _costs(topics: list[Published], used: list[list[Usage]], many: int, few: int) -> list[float]:
    """Compare the cost of an event, run by run."""
    return [
        (usage.cpu_s / topics[many].events) / (beside.cpu_s / topics[few].events)
        for usage, beside in zip(used[many], used[few], strict=True)
    ]


def _figures(published: Published, costs: list[float], used: list[Usage], startup: Usage) -> list[Figure]:
    series = published.load.series
    slides = published.load.duration_ms / SLIDE_MS
    density = f"{published.events / slides / series:,.1f} events a series a slide"
    records = f"{sum(published.series_at) / published.events:.4f} window records an event"
    figures = [
        Figure(
            "series",
            f"CPU an event at {series:,} series beside {LOADS[0].series}",
            median(costs),
            "x",
            COST_TARGET if series >= MANY else None,
            f"{density}, {records}; {spread(costs)}",
        )
    ]
    if series >= MANY:
        peak_gib = max(usage.peak_bytes for usage in used) / 2**30
        note = f"the largest of {len(used)} runs; {startup.peak_bytes / 2**30:.2f} GiB on an empty topic"
        figures.append(
            Figure("series", f"resident memory at {series:,} series", peak_gib, "GiB", MEMORY_TARGET_GIB, note)
        )
    return figures


def _closing(published: Published, cost: float) -> Figure:
    """Report what it costs when the open windows are closed too, which happens only where a log is read to its end."""
    return Figure(
        "series",
        f"the same at {published.load.series:,} series with every open window closed at the end",
        cost,
        "x",
        None,
        f"{published.windows_at_end / published.events:.4f} window records an event; one run",
    )

"""A transaction a batch against a transaction an epoch for the windows: what it costs, and how long a record waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks import latency
from benchmarks.flow_run import FlowRun
from benchmarks.load import publish
from benchmarks.report import Figure, median, spread
from benchmarks.series import load
from benchmarks.throughput import SINGLE, measure_startup

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.cluster import Cluster
    from benchmarks.processes import Usage

EPOCH: Final = ("-m", "benchmarks.epoch_commits")
BATCH: Final = ("-m", "bytewax.run")


def run(bench: Bench) -> list[Figure]:
    """Measure both over few and over many series in turns, then the wait with live traffic."""
    bench.say("commits: publishing")
    topics = [publish(bench.cluster, bench.scaled(wanted)) for wanted in (SINGLE, load(200, 50))]
    startup = measure_startup(bench).flow
    figures = []
    for published in topics:
        ratios = []
        for number in range(bench.runs):
            bench.say(f"commits: {published.load.series:,} series, run {number + 1} of {bench.runs}")
            batch, epoch = (_to_the_end(bench.cluster, published.topic, runner) for runner in (BATCH, EPOCH))
            ratios.append(batch.without(startup).cpu_s / epoch.without(startup).cpu_s)
        what = f"CPU of a transaction a batch beside one an epoch, {published.load.series:,} series"
        note = f"{published.windows_at_end / published.events:.3f} window records an event; {spread(ratios)}"
        figures.append(Figure("commits", what, median(ratios), "x", None, note))
    bench.cluster.delete([published.topic for published in topics])
    for name, runner in (("a batch", BATCH), ("an epoch", EPOCH)):
        bench.say(f"commits: waiting for windows with a transaction {name}")
        p99_ms = latency.measure(bench, runner)[0].value
        figures.append(Figure("commits", f"99th percentile of the wait with a transaction {name}", p99_ms, "ms"))
    return figures


def _to_the_end(cluster: Cluster, topic: str, runner: tuple[str, ...]) -> Usage:
    flow = FlowRun(cluster, topic, runner=runner)
    try:
        return flow.to_the_end()
    finally:
        flow.clean()

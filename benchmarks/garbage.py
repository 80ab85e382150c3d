"""What bad input costs the good events: one malformed record for nine good ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from benchmarks.load import publish
from benchmarks.report import Figure, median, spread
from benchmarks.throughput import SINGLE, flow_to_the_end, letters_to_the_end, measure_startup

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.processes import Usage

MALFORMED_RATIO: Final = 1 / 9
LOSS_TARGET: Final = 5.0


def run(bench: Bench) -> list[Figure]:
    """Measure the same good events with and without bad ones between them."""
    bench.say("garbage: publishing")
    clean = publish(bench.cluster, bench.scaled(SINGLE))
    dirty = publish(bench.cluster, bench.scaled(replace(SINGLE, name="garbage", malformed_ratio=MALFORMED_RATIO)))
    startup = measure_startup(bench).flow
    without: list[Usage] = []
    with_garbage: list[Usage] = []
    letters = bench.cluster.create("letters")
    least_s: list[float] = []
    for number in range(bench.runs):
        bench.say(f"garbage: run {number + 1} of {bench.runs}")
        without.append(flow_to_the_end(bench.cluster, clean.topic).without(startup))
        with_garbage.append(flow_to_the_end(bench.cluster, dirty.topic).without(startup))
        less, more = (letters_to_the_end(bench.cluster, topic, letters).cpu_s for topic in (clean.topic, dirty.topic))
        least_s.append(more - less)
    bench.cluster.delete([clean.topic, dirty.topic, letters])
    pairs = list(zip(without, with_garbage, strict=True))
    share = 100 * (dirty.records - clean.records) / dirty.records
    records = [100 * (1 - one.cpu_s / clean.records / (other.cpu_s / dirty.records)) for one, other in pairs]
    cpu = [100 * (1 - one.cpu_s / clean.events / (other.cpu_s / dirty.events)) for one, other in pairs]
    wall = [100 * (1 - one.wall_s / clean.events / (other.wall_s / dirty.events)) for one, other in pairs]
    least = [100 * (1 - one.cpu_s / (one.cpu_s + more_s)) for one, more_s in zip(without, least_s, strict=True)]
    least_us = [1e6 * more_s / (dirty.records - clean.records) for more_s in least_s]
    ours_us = [1e6 * (other.cpu_s - one.cpu_s) / (dirty.records - clean.records) for one, other in pairs]
    what = f"{share:.1f}% of {dirty.records:,} records malformed"
    return [
        Figure(
            "garbage",
            "throughput of good events that is lost, by wall time",
            median(wall),
            "%",
            LOSS_TARGET,
            f"{what}; {spread(wall)}",
        ),
        Figure("garbage", "the same, by CPU", median(cpu), "%", None, spread(cpu)),
        Figure("garbage", "the same, if a bare program wrote the letters", median(least), "%", None, spread(least)),
        Figure("garbage", "CPU a bad record", median(ours_us), "µs", None, f"{spread(ours_us)}; on this machine, now"),
        Figure("garbage", "CPU of it in the bare program", median(least_us), "µs", None, spread(least_us)),
        Figure("garbage", "throughput of records of any kind that is lost, by CPU", median(records), "%", None, ""),
    ]

"""What archiving an event costs, beside a consumer that does nothing, and what it takes on the disk."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import polars as pl

from benchmarks.flow_run import FlowRun
from benchmarks.load import publish
from benchmarks.processes import BenchmarkError
from benchmarks.report import Figure, median, spread
from benchmarks.throughput import SINGLE, consumer_to_the_end

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.cluster import Cluster
    from benchmarks.processes import Usage

FLOW = "flows.archive"


def archive_to_the_end(cluster: Cluster, topic: str, path: Path) -> Usage:
    """Archive a topic, all of it, with recovery."""
    run = FlowRun(cluster, topic, {"TAILMARK_ARCHIVE__PATH": str(path)}, flow=FLOW)
    try:
        return run.to_the_end()
    finally:
        run.clean()


def remove(path: Path) -> None:
    """Delete an archive."""
    for folder in (path, path.with_name(f"{path.name}.staging")):
        shutil.rmtree(folder, ignore_errors=True)


def run(bench: Bench) -> list[Figure]:
    """Measure single events.

    Raises:
        BenchmarkError: The archive does not hold every event.
    """
    bench.say("archive: publishing single events")
    events = publish(bench.cluster, bench.scaled(SINGLE))
    empty, path = bench.cluster.create("empty"), bench.cluster.directory / "archive"
    starts = []
    for _ in range(bench.runs):
        starts.append(archive_to_the_end(bench.cluster, empty, path))
        remove(path)
    nothing, archives = [], []
    size_bytes = files = 0
    for number in range(bench.runs):
        bench.say(f"archive: run {number + 1} of {bench.runs}")
        nothing.append(consumer_to_the_end(bench.cluster, events.topic))
        archives.append(archive_to_the_end(bench.cluster, events.topic, path))
        held = pl.scan_parquet(path, hive_partitioning=True).select(pl.len()).collect().item()
        if held != events.events:
            raise BenchmarkError(f"the archive holds {held} of {events.events} events")
        found = list(path.rglob("*.parquet"))
        size_bytes, files = sum(file.stat().st_size for file in found), len(found)
        remove(path)
    bench.cluster.delete([events.topic, empty])
    start_cpu_s, start_wall_s = median([usage.cpu_s for usage in starts]), median([usage.wall_s for usage in starts])
    cpu_us = [(usage.cpu_s - start_cpu_s) / events.events * 1e6 for usage in archives]
    rates = [events.events / (usage.wall_s - start_wall_s) for usage in archives]
    consuming_us = median([usage.cpu_s for usage in nothing]) / events.events * 1e6
    peak_mib = max(usage.peak_bytes for usage in archives) / 2**20
    return [
        Figure("archive", "CPU an event", median(cpu_us), "µs", None, spread(cpu_us)),
        Figure("archive", "CPU of consuming it, start included", consuming_us, "µs", None, "on this machine, now"),
        Figure("archive", "events archived, one process", median(rates), "1/s", None, spread(rates)),
        Figure("archive", "bytes on disk an event", size_bytes / events.events, "B", None, f"{files} files"),
        Figure("archive", "memory at the most", peak_mib, "MiB", None, f"{events.events:,} events"),
    ]

"""Where the CPU time of an event goes, stage by stage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.flow_run import FlowRun
from benchmarks.load import publish
from benchmarks.report import Figure
from benchmarks.throughput import SINGLE
from benchmarks.watched import ENGINE, NATIVE, OTHER, SINKS, SNAPSHOT

if TYPE_CHECKING:
    from benchmarks.bench import Bench

ORDER = (
    *("consume", "decode", "columns", "shard", "census", "windows", "score", "alert", "encode", "hand to sinks"),
    *("dead letters", "page", SNAPSHOT, ENGINE, SINKS, OTHER, NATIVE),
)

NOTES = {
    "consume": "making messages of what was fetched, and what is left of the source",
    "columns": "series codes, lateness, and arrays of the decoded events",
    ENGINE: "moving frames between steps, writing snapshots to SQLite",
    SINKS: "producing and committing, beside the worker",
    NATIVE: "its own threads: fetching and sending",
}


def run(bench: Bench) -> list[Figure]:
    """Watch one run over single events."""
    bench.say("stages: publishing")
    single = publish(bench.cluster, bench.scaled(SINGLE))
    report = bench.cluster.directory / "stages.json"
    flow = FlowRun(bench.cluster, single.topic, runner=("-m", "benchmarks.watched", str(report)))
    bench.say("stages: watching")
    try:
        flow.to_the_end()
    finally:
        flow.clean()
        bench.cluster.delete([single.topic])
    cpu_s: dict[str, float] = json.loads(report.read_text(encoding="utf-8"))["cpu_s"]
    total_s = sum(cpu_s.values())
    return [
        Figure("stages", stage, 100 * cpu_s[stage] / total_s, "%", None, _note(stage, cpu_s[stage], single.events))
        for stage in sorted(cpu_s, key=ORDER.index)
    ]


def _note(stage: str, cpu_s: float, events: int) -> str:
    note = f"{cpu_s / events * 1e6:.3f} µs an event"
    return f"{note}; {NOTES[stage]}" if stage in NOTES else note

"""What the bridge costs beside a consumer that does nothing, and how long its page takes while it reads."""

from __future__ import annotations

import gzip
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.error import URLError
from urllib.request import Request, urlopen

from benchmarks.flow_run import FlowRun
from benchmarks.load import SLIDE_MS, Load, publish
from benchmarks.processes import BenchmarkError, Child
from benchmarks.prometheus import Prometheus
from benchmarks.report import Figure, median, spread
from benchmarks.throughput import SINGLE, consumer_to_the_end
from local.ports import free_port

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.load import Published
    from benchmarks.processes import Usage

FLOW: Final = "flows.bridge"
WIDE: Final = Load(name="wide", events=1_000_000, rate_per_s=20_000, services=200, endpoints=50)
PAGE_TARGET_S: Final = 0.5
LINES_OF_SERIES: Final = 21
EVENTS_OF_SERIES: Final = 30
"""Fewer, and not every series would be on the page."""

_SERIES_SHARE: Final = 0.95
_TRIES_S: Final = 120.0
_AS_PROMETHEUS: Final = {"Accept": "application/openmetrics-text;version=1.0.0", "Accept-Encoding": "gzip"}
_LAG: Final = b"tailmark_lag_events{"


def bridge_to_the_end(bench: Bench, topic: str, receiver: Prometheus | None) -> Usage:
    """Count a topic, all of it, with recovery."""
    told = {} if receiver is None else {"TAILMARK_PROMETHEUS__REMOTE_WRITE_URL": receiver.write_url}
    run = FlowRun(bench.cluster, topic, told, flow=FLOW)
    try:
        return run.to_the_end()
    finally:
        run.clean()


def run(bench: Bench) -> list[Figure]:
    """Measure single events, then a page of 10,000 series."""
    return costs(bench) + pages(bench)


def costs(bench: Bench) -> list[Figure]:
    """Measure the CPU time of an event, with and without a receiver, in turns."""
    bench.say("bridge: publishing single events")
    events = publish(bench.cluster, bench.scaled(SINGLE))
    empty = bench.cluster.create("empty")
    starts = [bridge_to_the_end(bench, empty, None).cpu_s for _ in range(bench.runs)]
    idle = [consumer_to_the_end(bench.cluster, empty).cpu_s for _ in range(bench.runs)]
    nothing, scraped, written = [], [], []
    for number in range(bench.runs):
        bench.say(f"bridge: run {number + 1} of {bench.runs}")
        nothing.append(consumer_to_the_end(bench.cluster, events.topic).cpu_s - median(idle))
        scraped.append(bridge_to_the_end(bench, events.topic, None).cpu_s - median(starts))
        receiver = Prometheus(bench.cluster.directory / f"prometheus-{number}").start()
        try:
            written.append(bridge_to_the_end(bench, events.topic, receiver).cpu_s - median(starts))
        finally:
            receiver.kill()
    bench.cluster.delete([events.topic, empty])
    figures = []
    for name, spent in (("page alone", scraped), ("and remote write", written)):
        ratios = [mine / none for mine, none in zip(spent, nothing, strict=True)]
        each_us = median(spent) / events.events * 1e6
        figures.append(Figure("bridge", f"CPU beside consuming, {name}", median(ratios), "x", None, spread(ratios)))
        figures.append(Figure("bridge", f"CPU an event, {name}", each_us, "µs", None, "on this machine, now"))
    return figures


def pages(bench: Bench) -> list[Figure]:
    """Scrape a page of 10,000 series while the flow reads, and when it has read everything."""
    bench.say("bridge: publishing events of 10,000 series")
    load = bench.scaled(WIDE)
    events = publish(bench.cluster, replace(load, events=max(load.events, EVENTS_OF_SERIES * load.series)))
    flow, port = FlowRun(bench.cluster, events.topic, flow=FLOW), free_port()
    child = Child(
        ["-m", "bytewax.run", FLOW, "-r", str(flow.recovery), "-s", "10", "-b", "0"],
        flow.environment | {"TAILMARK_PROMETHEUS__PORT": str(port)},
    )
    try:
        busy, still, lines = scraped(port, child, events)
    finally:
        child.kill()
        flow.clean()
    pane_s = delivery_of_a_pane(bench, events)
    bench.cluster.delete([events.topic])
    figures = [
        Figure("bridge", "lines of the page", lines, "", None, f"{WIDE.series:,} series"),
        Figure(
            "bridge", f"remote write of a pane of {WIDE.series:,} series", pane_s, "s", SLIDE_MS / 1000, "wall time"
        ),
    ]
    for name, seconds in (("while the flow reads", busy), ("at the end of the log", still)):
        if seconds:
            note = spread(seconds)
            figures.append(Figure("bridge", f"page, {name}, median", median(seconds), "s", PAGE_TARGET_S, note))
    return figures


def delivery_of_a_pane(bench: Bench, events: Published) -> float:
    """Measure how much longer a log takes when it is written to a Prometheus on the same machine, seconds a pane."""
    bench.say("bridge: writing 10,000 series to Prometheus")
    alone = bridge_to_the_end(bench, events.topic, None)
    receiver = Prometheus(bench.cluster.directory / "prometheus-wide").start()
    try:
        written = bridge_to_the_end(bench, events.topic, receiver)
    finally:
        receiver.kill()
    return (written.wall_s - alone.wall_s) / (events.load.duration_ms / SLIDE_MS)


def scraped(port: int, child: Child, events: Published) -> tuple[list[float], list[float], int]:
    """Scrape again and again, until some pages at the end of the log have been seen.

    Returns:
        How long whole pages took while there was more to read, and after that; and their lines.

    Raises:
        BenchmarkError: There was never a whole page.
    """
    busy: list[float] = []
    still: list[float] = []
    lines, deadline = 0, time.monotonic() + _TRIES_S
    whole = _SERIES_SHARE * events.load.series * LINES_OF_SERIES
    while len(still) < len(busy) + 5:
        child.check()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the page had {lines} lines after {_TRIES_S:.0f} s, not those of all series")
        began_s = time.perf_counter()
        try:
            with urlopen(Request(f"http://127.0.0.1:{port}/metrics", headers=_AS_PROMETHEUS), timeout=30) as answer:
                squeezed = answer.read()
        except (URLError, OSError):
            time.sleep(0.05)
            continue
        took_s = time.perf_counter() - began_s
        page = gzip.decompress(squeezed)
        lines = page.count(b"\n")
        lags = [float(line.split()[-1]) for line in page.splitlines() if line.startswith(_LAG)]
        if lines >= whole:
            (busy if sum(lags) else still).append(took_s)
    return busy, still, lines

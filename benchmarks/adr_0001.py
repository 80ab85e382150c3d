"""What decision 1 costs and brings, measured: Kafka and the bridge beside direct remote write, in one run.

Every event goes both ways at once: to Kafka, from which the bridge writes to Prometheus, and as a datagram to a pusher
that writes its counters once a second (`benchmarks.direct_push`). The bridge's panes are a second, too, without allowed
lateness, so that both wait equally long before they write. Then the receiver is killed for a while, and then what is
between: the bridge, and the pusher. `python -m benchmarks.adr_0001 --outage 30`
"""

from __future__ import annotations

import itertools
import json
import random
import socket
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import typer
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from benchmarks.cluster import PARTITIONS, Cluster, open_cluster
from benchmarks.direct_push import METRIC, batch_of
from benchmarks.processes import BenchmarkError, Child
from benchmarks.prometheus import Prometheus
from benchmarks.report import Figure, median, print_figures, spread
from local.ports import free_port
from sinks.remote_write_receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RATE_PER_S: Final = 400
SERVICES, ENDPOINTS = 5, 4
WARM_S: Final = 6.0
PANE_S: Final = 1.0
POLL_S: Final = 0.01
SETTLE_S: Final = 90.0
PUSHES: Final = 300
LOAD_EVENTS: Final = 40_000
LOAD_PER_S: Final = 10_000
LOAD_RUNS: Final = 3

CONSUMERS: Final = ("flows.bridge", "flows.archive")

BRIDGED: Final = "sum(telemetry_requests_total)"
PUSHED: Final = f"sum({METRIC})"

_PANES: Final = {
    "TAILMARK_WINDOW__SLIDE_MS": "1000",
    "TAILMARK_WINDOW__LENGTH_MS": "10000",
    "TAILMARK_WINDOW__ALLOWED_LATENESS_MS": "0",
    "TAILMARK_WINDOW__IDLE_AFTER_MS": "3000",
}


@dataclass
class Source:
    """Sends the same events both ways, at the pace of the clock.

    Attributes:
        sent_s: When each event was sent, seconds of the clock.
        hops_s: When each event was sent that a consumer of the topic got, and how long it took.
    """

    cluster: Cluster
    topic: str
    push_port: int
    sent_s: list[float] = field(default_factory=list)
    hops_s: list[tuple[float, float]] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin."""
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._listen, self._send)]
        for thread in self._threads:
            thread.start()
            time.sleep(0.5)

    def stop(self) -> None:
        """Send no more."""
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        producer = Producer({**self.cluster.client, "linger.ms": 5, "enable.idempotence": True})
        outbox = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rng, began_s = random.Random(1), time.time()  # noqa: S311 - a seed, no secret
        for number in itertools.count():
            while number > (time.time() - began_s) * RATE_PER_S:
                producer.poll(0)
                if self._done.wait(0.002):
                    producer.flush()
                    return
            now_s = time.time()
            value = event_at(now_s, rng)
            self.sent_s.append(now_s)
            producer.produce(self.topic, value, partition=number % PARTITIONS)
            outbox.sendto(value, ("127.0.0.1", self.push_port))

    def _listen(self) -> None:
        consumer = Consumer({**self.cluster.client, "group.id": "tailmark-bench-hop", "fetch.queue.backoff.ms": 5})
        consumer.assign([TopicPartition(self.topic, partition, OFFSET_END) for partition in range(PARTITIONS)])
        while not self._done.is_set():
            for message in consumer.consume(1000, 0.002):
                if message.error() is None:
                    sent_s = json.loads(message.value() or b"")["sent_s"]
                    self.hops_s.append((sent_s, time.time() - sent_s))
        consumer.close()


def event_at(now_s: float, rng: random.Random) -> bytes:
    """Make one event."""
    fields = {
        "timestamp_ms": int(now_s * 1000),
        "service": f"service-{rng.randrange(SERVICES)}",
        "endpoint": f"/{rng.randrange(ENDPOINTS)}",
        "status": rng.choice([200, 200, 200, 500]),
        "latency_ms": rng.lognormvariate(3, 1),
        "sent_s": now_s,
    }
    return json.dumps(fields).encode()


@dataclass
class Setup:
    """Everything that runs.

    Attributes:
        prometheus: The receiver of both.
        source: What sends.
        flow_settings: Environment of the bridge.
        recovery: Its recovery directory.
    """

    prometheus: Prometheus
    source: Source
    flow_settings: dict[str, str]
    recovery: Path
    between: list[Child] = field(default_factory=list)

    def start_between(self) -> None:
        """Start the bridge and the pusher."""
        push = ["-m", "benchmarks.direct_push", str(self.source.push_port), self.prometheus.write_url]
        self.between = [self.bridge(self.recovery, self.prometheus, to_the_end=False), Child(push, {})]

    def kill_between(self) -> None:
        """Kill both."""
        for child in self.between:
            child.kill()

    def bridge(self, recovery: Path, prometheus: Prometheus, *, to_the_end: bool) -> Child:
        """Start a bridge."""
        recovery.mkdir(exist_ok=True)
        told = {
            "TAILMARK_PROMETHEUS__REMOTE_WRITE_URL": prometheus.write_url,
            "TAILMARK_PROMETHEUS__PORT": str(free_port()),
            "TAILMARK_KAFKA__STOP_AT_END": str(to_the_end).lower(),
        }
        state = ["-r", str(recovery), "-s", "5", "-b", "0"]
        return Child(["-m", "bytewax.run", "flows.bridge", *state], self.flow_settings | told)


def watch(setup: Setup, seconds: float) -> tuple[dict[str, list[float]], list[float]]:
    """Ask again and again how many events Prometheus has.

    Returns:
        How long each event took to be counted, by query; and how long after the end of a pane the bridge's were. All in
        seconds.
    """
    sent_s = setup.source.sent_s
    seen: dict[str, list[tuple[float, float]]] = {BRIDGED: [], PUSHED: []}
    first, stop_s = len(sent_s), time.time() + seconds
    while time.time() < stop_s:
        for query, polls in seen.items():
            value = setup.prometheus.value(query)
            polls.append((time.time(), value))
        time.sleep(POLL_S)
    found = {query: list(_latencies(polls, sent_s, first)) for query, polls in seen.items()}
    changes = [at_s for (_, before), (at_s, value) in itertools.pairwise(seen[BRIDGED]) if value != before]
    return found, [at_s % PANE_S for at_s in changes]


def _latencies(polls: Sequence[tuple[float, float]], sent_s: list[float], first: int) -> Iterator[float]:
    number = first
    for at_s, counted in polls:
        while number < min(counted, len(sent_s)):
            yield at_s - sent_s[number]
            number += 1


def outage(kill: Callable[[], None], start: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Kill something for a while; returns from when to when."""
    began_s = time.time()
    kill()
    time.sleep(seconds)
    start()
    ended_s = time.time()
    time.sleep(WARM_S)
    return began_s, ended_s


def counted(prometheus: Prometheus, selector: str, range_s: float) -> float:
    """Count events by the stored samples, over restarts of a counter: as `increase` does, and without its guesses."""
    total = 0.0
    for samples in prometheus.samples(selector, range_s):
        before = 0.0
        for _, value in samples:
            total += value - before if value >= before else value
            before = value
    return total


def empty_seconds(prometheus: Prometheus, selector: str, span: tuple[float, float], range_s: float) -> int:
    """Count the seconds in a span that no sample of any series is in."""
    at = {int(second) for samples in prometheus.samples(selector, range_s) for second, _ in samples}
    return len(set(range(int(span[0]) + 1, int(span[1]))) - at)


def percentile_ms(values: Sequence[float], percent: float) -> float:
    """Give a percentile of seconds, in milliseconds."""
    return float(np.percentile(values, percent)) * 1000 if len(values) else float("nan")


def compare(setup: Setup, watch_s: float, outage_s: float, say: Callable[[str], None]) -> list[Figure]:
    """Measure latency, then the two outages, then a replay."""
    source, prometheus = setup.source, setup.prometheus
    setup.start_between()
    time.sleep(WARM_S)  # both listen before anything is sent
    source.start()
    time.sleep(WARM_S)
    say(f"adr 1: watching {RATE_PER_S} events a second for {watch_s:.0f} s")
    watched_s = time.time()
    latencies, behind_s = watch(setup, watch_s)
    hops_s = [took_s for sent_s, took_s in source.hops_s if sent_s >= watched_s]
    say(f"adr 1: the receiver is away for {outage_s:.0f} s")
    away = outage(prometheus.kill, prometheus.start, outage_s)
    say(f"adr 1: the bridge and the pusher are away for {outage_s:.0f} s")
    gone = outage(setup.kill_between, setup.start_between, outage_s)
    source.stop()
    sent = len(source.sent_s)
    deadline = time.monotonic() + SETTLE_S
    while prometheus.value(BRIDGED) < sent and time.monotonic() < deadline:
        time.sleep(0.5)
        for child in setup.between:
            child.check()
    range_s = time.time() - source.sent_s[0] + 60
    bridged, pushed = (counted(prometheus, name, range_s) for name in ("telemetry_requests_total", METRIC))
    setup.kill_between()
    figures = [
        Figure("latency", "Kafka alone, event to consumer, median", percentile_ms(hops_s, 50), "ms"),
        Figure("latency", "Kafka alone, event to consumer, 99th percentile", percentile_ms(hops_s, 99), "ms"),
    ]
    for way, query in (("direct", PUSHED), ("Kafka and bridge", BRIDGED)):
        for percent in (50, 99):
            name = f"{way}, event to Prometheus, {percent}th percentile"
            figures.append(Figure("latency", name, percentile_ms(latencies[query], percent), "ms"))
    title = "Kafka and bridge, end of a pane to Prometheus, median"
    figures.append(Figure("latency", title, percentile_ms(behind_s, 50), "ms"))
    for what, span in (("receiver was", away), ("bridge and the pusher were", gone)):
        for way, name in (("direct", METRIC), ("Kafka and bridge", "telemetry_requests_total")):
            empty = empty_seconds(prometheus, name, span, range_s)
            title = f"{way}, seconds without a sample while the {what} away"
            figures.append(Figure("outages", title, empty, "s", None, f"of {span[1] - span[0]:.0f}"))
    figures += [
        Figure("outages", "direct, events lost", sent - pushed, "", None, f"of {sent:,}"),
        Figure("outages", "Kafka and bridge, events lost", sent - bridged, "", None, f"of {sent:,}"),
        replayed(setup, sent, say),
    ]
    return figures


def replayed(setup: Setup, sent: int, say: Callable[[str], None]) -> Figure:
    """Write the whole topic to a Prometheus that has nothing, as after the loss of its disk."""
    say("adr 1: replaying the topic to an empty Prometheus")
    with tempfile.TemporaryDirectory(prefix="tailmark-bench-") as directory:
        empty = Prometheus(Path(directory) / "prometheus").start()
        try:
            setup.bridge(Path(directory) / "recovery", empty, to_the_end=True).wait()
            found = counted(empty, "telemetry_requests_total", 7200)
        finally:
            empty.kill()
    return Figure(
        "replay", "Kafka and bridge, events in an empty Prometheus after a replay", found, "", None, f"of {sent:,}"
    )


def producing(cluster: Cluster, topic: str) -> tuple[float, float]:
    """Produce at a steady pace; returns CPU time an event in µs, and the 99th percentile of acknowledgements in ms."""
    acks: list[float] = []
    producer = Producer({**cluster.client, "linger.ms": 5, "enable.idempotence": True})
    rng, began_s, cpu_s = random.Random(2), time.monotonic(), time.process_time()  # noqa: S311 - likewise
    values = [event_at(time.time(), rng) for _ in range(1000)]
    for number in range(LOAD_EVENTS):
        while number > (time.monotonic() - began_s) * LOAD_PER_S:
            time.sleep(0.002)
            producer.poll(0)
        value = values[number % len(values)]
        producer.produce(
            topic, value, partition=number % PARTITIONS, on_delivery=lambda _, message: acks.append(message.latency())
        )
    producer.flush()
    return (time.process_time() - cpu_s) / LOAD_EVENTS * 1e6, percentile_ms(acks, 99)


@contextmanager
def consumers(cluster: Cluster, topic: str, flows: Sequence[str]) -> Iterator[None]:
    """Run flows on a topic for as long as the context lasts."""
    archive = str(cluster.directory / "archive")
    settings = cluster.environment(topic) | {"TAILMARK_ARCHIVE__PATH": archive}
    running = [
        Child(["-m", "bytewax.run", flow], settings | {"TAILMARK_PROMETHEUS__PORT": str(free_port())}) for flow in flows
    ]
    time.sleep(WARM_S)
    try:
        yield
        for child in running:
            child.check()
    finally:
        for child in running:
            child.kill()


def second_consumer(setup: Setup, cluster: Cluster, say: Callable[[str], None]) -> list[Figure]:
    """Measure what a further consumer costs those who send."""
    say("adr 1: producing beside one consumer, and beside two")
    topic = cluster.create("fan-out")
    measured: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(LOAD_RUNS):
        for number, found in measured.items():
            with consumers(cluster, topic, CONSUMERS[:number]):
                found.append(producing(cluster, topic))
    figures = []
    for number, found in measured.items():
        beside = f"beside {number} consumer{'s' if number > 1 else ''}"
        cpu_us, ack_ms = [cpu for cpu, _ in found], [ack for _, ack in found]
        title = f"Kafka, CPU of the producer an event, {beside}"
        figures.append(Figure("fan-out", title, median(cpu_us), "µs", None, spread(cpu_us)))
        title = f"Kafka, 99th percentile of acknowledgements, {beside}"
        figures.append(Figure("fan-out", title, median(ack_ms), "ms", None, spread(ack_ms)))
    counts = {(f"service-{number % 50}", f"/{number}", "200"): number for number in range(500)}
    for receivers in (1, 2):
        clients = [
            Receiver(setup.prometheus.write_url, timeout_s=5, headers={}, clock=time.time) for _ in range(receivers)
        ]
        cpu_s = time.process_time()
        for number in range(PUSHES):
            for client in clients:
                client.post(batch_of(counts, int(time.time() * 1000) + number))
        cpu_ms = (time.process_time() - cpu_s) / PUSHES * 1000
        name = f"direct, CPU of a push of 500 series to {receivers} receiver{'s' if receivers > 1 else ''}"
        figures.append(Figure("fan-out", name, cpu_ms, "ms"))
    return figures


def main(
    *,
    outage_s: Annotated[float, typer.Option("--outage", min=1, help="Seconds that each part is away.")] = 30.0,
    watch_s: Annotated[float, typer.Option("--watch", min=5, help="Seconds that latency is watched.")] = 30.0,
) -> None:
    """Measure both ways from an event to Prometheus."""

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        with (
            tempfile.TemporaryDirectory(prefix="tailmark-bench-") as directory,
            open_cluster({}, Path(directory), say) as cluster,
        ):
            prometheus = Prometheus(Path(directory) / "prometheus").start()
            topic = cluster.create("both-ways")
            source = Source(cluster, topic, free_port())
            setup = Setup(prometheus, source, cluster.environment(topic) | _PANES, Path(directory) / "recovery")
            try:
                figures = compare(setup, watch_s, outage_s, say) + second_consumer(setup, cluster, say)
            finally:
                setup.kill_between()
                prometheus.kill()
    except BenchmarkError as error:
        say(f"benchmarks: {error}")
        raise typer.Exit(1) from None
    print_figures("decision 1: Kafka and the bridge beside direct remote write", figures)


if __name__ == "__main__":
    typer.run(main)

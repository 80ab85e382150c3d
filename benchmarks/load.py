"""What a benchmark feeds to the flow: a recording of the simulator's fake world, published once and read many times."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks.cluster import PARTITIONS
from simulator.disorder import Disturbances
from simulator.encode import Records, heartbeat
from simulator.publish import Publisher
from simulator.stream import Plan, record
from simulator.world import load_factor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.cluster import Cluster

SLIDE_MS: Final = 10_000
LENGTH_MS: Final = 60_000
LATENESS_MS: Final = 5_000
"""Defaults of the flow's window settings, which every benchmark but that of latency uses."""

LINGER_MS: Final = 10_000
"""How long an event waits for its array to fill, at most: long enough for all but the last of a stretch."""

_START_OF_DAY_MS: Final = 8 * 3_600_000
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to publish.

    Attributes:
        name: For people.
        events: Good events, about.
        rate_per_s: Good events a second of event time.
        services: Number of services.
        endpoints: Endpoints of each: together with `services` the number of series.
        encoding: One of the simulator's encodings.
        malformed_ratio: Malformed events for each good one.
        ends_with_heartbeats: Whether event time goes on far enough at the end to close the last pane.
        start_ms: Event time of the beginning; 0 for this morning.
    """

    name: str
    events: int
    rate_per_s: float
    services: int
    endpoints: int
    encoding: str = "single"
    malformed_ratio: float = 0.0
    ends_with_heartbeats: bool = False
    start_ms: int = 0

    @property
    def series(self) -> int:
        """How many series the world has."""
        return self.services * self.endpoints

    @property
    def duration_ms(self) -> int:
        """How much event time it takes, in whole slides."""
        return max(1, round(self.events / self.rate_per_s * 1000 / SLIDE_MS)) * SLIDE_MS

    def plan(self) -> Plan:
        """Give the simulator's plan; its load curve is evened out, so that the rate is the one asked for."""
        start_ms = self.start_ms or int(time.time() * 1000) // _DAY_MS * _DAY_MS - _DAY_MS + _START_OF_DAY_MS
        return Plan(
            start_ms=start_ms,
            duration_ms=self.duration_ms,
            rate_per_s=self.events / (self.duration_ms / 1000) / load_factor(start_ms + self.duration_ms / 2),
            services=self.services,
            endpoints=self.endpoints,
            scenario="calm",
            encoding=self.encoding,
            linger_ms=LINGER_MS,
            disturbances=Disturbances(
                disorder_ratio=0.0,
                late_ratio=0.0,
                duplicate_ratio=0.0,
                malformed_ratio=self.malformed_ratio,
                skew_ratio=0.0,
            ),
        )


@dataclass(frozen=True, slots=True)
class Published:
    """What was published.

    Attributes:
        topic: Where it is.
        load: What was asked for.
        records: Kafka records, heartbeats included.
        events: Good events.
        bytes: Sum of the lengths of the values.
        start_ms: Event time of the beginning.
        series_at: How many series had traffic before the end of each pane; empty where nobody asked.
    """

    topic: str
    load: Load
    records: int
    events: int
    bytes: int
    start_ms: int
    series_at: tuple[int, ...]

    @property
    def windows_at_end(self) -> int:
        """How many windows a flow writes that reads to the end and closes what is open then."""
        at = self.series_at or (self.load.series,) * (self.load.duration_ms // SLIDE_MS)
        return sum(at) + at[-1] * (LENGTH_MS // SLIDE_MS - 1)


class _Where(msgspec.Struct, gc=False):
    timestamp_ms: int
    service: str = ""
    endpoint: str = ""


def publish(cluster: Cluster, load: Load, *, topic: str | None = None) -> Published:
    """Publish a recording as fast as possible.

    Args:
        cluster: Where to.
        load: What.
        topic: An existing topic; a new one when None.

    Returns:
        What is in the topic now.

    Raises:
        PublishError: A delivery failed.
    """
    topic = topic or cluster.create(load.name)
    plan = load.plan()
    publisher = Publisher(cluster.client, topic)
    records = events = size = 0
    seen: list[set[tuple[str, str]]] = [set() for _ in range(load.duration_ms // SLIDE_MS)]
    for chunk in record(plan, PARTITIONS):
        publisher.send(chunk.records)
        records += len(chunk.records)
        events += int(chunk.records.contents[:, 0].sum())
        size += sum(map(len, chunk.records.values))
        if load.ends_with_heartbeats:
            _note(seen, chunk.records.values, plan.start_ms)
    if load.ends_with_heartbeats:
        last = _heartbeats(plan.start_ms + load.duration_ms + LATENESS_MS)
        publisher.send(last)
        records += len(last)
    publisher.flush()
    known: set[tuple[str, str]] = set()
    at = tuple(len(known := known | pane) for pane in seen) if load.ends_with_heartbeats else ()
    return Published(topic, load, records, events, size, plan.start_ms, at)


def _note(seen: list[set[tuple[str, str]]], values: Iterable[bytes], start_ms: int) -> None:
    """Remember which series had traffic in which pane."""
    decode = msgspec.json.Decoder(_Where).decode
    for value in values:
        event = decode(value)
        if event.service:
            seen[(event.timestamp_ms - start_ms) // SLIDE_MS].add((event.service, event.endpoint))


def _heartbeats(timestamp_ms: int) -> Records:
    """Make one heartbeat for each partition."""
    return Records(
        values=[heartbeat(timestamp_ms)] * PARTITIONS,
        keys=[None] * PARTITIONS,
        partitions=list(range(PARTITIONS)),
        arrival_ms=[timestamp_ms] * PARTITIONS,
    )

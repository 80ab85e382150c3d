"""A log in which services go wrong now and then, pane by pane, so that alerts open and close on the way."""

from __future__ import annotations

import json
import random

from tests.dirty_log import START_MS, Log, event

SLIDE_MS = 10_000
FIRST_INCIDENT_PANE = 40
INCIDENT_EVERY_PANES = 30
INCIDENT_PANES = 8
KINDS = ("slow", "failing", "silent")
SERVICES = ("cart", "checkout", "search-ü")


def incident_log(seed: int, *, partitions: int, panes: int, requests: int = 30) -> list[Log]:
    """Write the log of some services, one of which is ill for a while from time to time.

    Every partition has a heartbeat in every pane, so that none is ever idle. One value in twenty is bad, a few events
    come late, and one value in three is an array or lines.

    Args:
        seed: Of everything.
        partitions: Number of partitions.
        panes: How many panes of 10 s.
        requests: Requests of each service in a pane, about.

    Returns:
        For each pane the record values of each partition, in log order.
    """
    rng = random.Random(seed)
    return [_pane(rng, pane, partitions, requests) for pane in range(panes)]


def ailment(pane: int) -> tuple[str, str] | None:
    """Tell which service is ill in a pane, and how."""
    number, since = divmod(pane - FIRST_INCIDENT_PANE, INCIDENT_EVERY_PANES)
    if number < 0 or since >= INCIDENT_PANES:
        return None
    return SERVICES[number % len(SERVICES)], KINDS[number % len(KINDS)]


def _pane(rng: random.Random, pane: int, partitions: int, requests: int) -> Log:
    begin_ms = START_MS // SLIDE_MS * SLIDE_MS + pane * SLIDE_MS
    ill, how = ailment(pane) or ("", "")
    events: list[tuple[int, bytes]] = []
    for service in SERVICES:
        if service == ill and how == "silent":
            continue
        for _ in range(requests + rng.randrange(5)):
            at_ms = begin_ms + rng.randrange(SLIDE_MS)
            latency = rng.lognormvariate(3, 0.4) * (12 if service == ill and how == "slow" else 1)
            failed = rng.random() < (0.6 if service == ill and how == "failing" else 0.005)
            behind = 120_000 if rng.random() < 0.01 else rng.randrange(4_000)
            events.append((at_ms, event(at_ms - behind, service, "/", round(latency, 3), 500 if failed else 200)))
    events.sort()
    log: Log = [[] for _ in range(partitions)]
    while events:
        size = rng.choice([1, 1, 2, 5])
        items = [value for _, value in events[:size]]
        events = events[size:]
        value = items[0] if size == 1 else rng.choice([b"[" + b",".join(items) + b"]", b"\n".join(items)])
        partition = rng.randrange(partitions)
        log[partition].append(value)
        if rng.random() < 0.05:
            log[partition].append(rng.choice([None, b"", b"{", b"[1]", b'{"timestamp_ms":1}']))
    for values in log:
        values.append(json.dumps({"timestamp_ms": begin_ms + SLIDE_MS - 1, "heartbeat": True}).encode())
    return log

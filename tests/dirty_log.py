"""Logs as bad as producers can make them, from a seed."""

from __future__ import annotations

import json
import random

START_MS = 1_763_900_000_000
Log = list[list[bytes | None]]
"""Record values by partition, in log order."""


def event(at_ms: int, service: str = "a", endpoint: str = "/", latency_ms: float = 1.0, status: int = 200) -> bytes:
    fields = {
        "timestamp_ms": at_ms,
        "service": service,
        "endpoint": endpoint,
        "latency_ms": latency_ms,
        "status": status,
    }
    return json.dumps(fields).encode()


def dirty_log(seed: int, partitions: int, records: int, span_ms: int) -> Log:
    """A log with disorder, late events, heartbeats, arrays, NDJSON, garbage and bad items."""
    rng = random.Random(seed)
    services = ["a", "b", "c-ü", "d"]
    log: Log = [[] for _ in range(partitions)]
    for number in range(records):
        now = START_MS + span_ms * number // records

        def some(now: int = now) -> bytes:
            at = now - int(rng.expovariate(1 / 3_000)) if rng.random() < 0.9 else now - rng.randrange(90_000)
            latency = rng.choice([0, 0.0004, 0.001, rng.lognormvariate(3, 2), 1e7])
            service = rng.choice(services)
            return event(at, service, rng.choice(["", "/x", "/y" * 100]), latency, rng.choice([200, 404, 500, 503]))

        kind = rng.random()
        if kind < 0.6:
            value: bytes | None = some()
        elif kind < 0.7:
            value = b"[" + b",".join(some() for _ in range(rng.randrange(4))) + b"]"
        elif kind < 0.8:
            value = b"\n".join([some(), b"", some(), rng.choice([some(), b"{", b'{"timestamp_ms":5}'])])
        elif kind < 0.85:
            value = json.dumps({"timestamp_ms": now, "heartbeat": True}).encode()
        else:
            value = rng.choice([None, b"", b"x", b"[", b"3", b"[1,{}]", b"\xff\xfe", event(now + 10**10), b'{"a":1}'])
        log[rng.randrange(partitions)].append(value)
    return log

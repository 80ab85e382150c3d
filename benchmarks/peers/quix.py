"""Sliding-window P99 for each service and endpoint, in Quix Streams: what `benchmarks.peers` runs beside our flow.

Arguments: servers, input topic, output topic, consumer group, directory for state. It reads to the end of the input and
ends after a quiet second. It runs in an environment of its own and imports nothing of ours.
"""

import math
import sys
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Reduce

LENGTH_MS, SLIDE_MS, LATENESS_MS = 60_000, 10_000, 5_000
QUIET_S = 1.0
FIRST_ERROR = 500
WIDTH = math.log(1.02)
LEAST_MS = 0.01


def bucket_of(latency_ms: float) -> str:
    """Give the number of a bucket of 2% width."""
    return str(int(math.log(max(latency_ms, LEAST_MS) / LEAST_MS) / WIDTH))


def first(event: dict[str, Any]) -> dict[str, Any]:
    """Begin a window with an event; a state is JSON."""
    return more({"count": 0, "errors": 0, "sum": 0.0, "max": 0.0, "buckets": {}}, event)


def more(window: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """Add an event to a window."""
    latency_ms = event["latency_ms"]
    bucket = bucket_of(latency_ms)
    window["count"] += 1
    window["errors"] += event.get("status", 200) >= FIRST_ERROR
    window["sum"] += latency_ms
    window["max"] = max(window["max"], latency_ms)
    window["buckets"][bucket] = window["buckets"].get(bucket, 0) + 1
    return window


def quantile(window: dict[str, Any], q: float) -> float:
    """Give the middle of the bucket that holds a quantile."""
    rank, seen = math.ceil(q * window["count"]), 0
    for bucket in sorted(map(int, window["buckets"])):
        seen += window["buckets"][str(bucket)]
        if seen >= rank:
            return LEAST_MS * math.exp((bucket + 0.5) * WIDTH)
    return window["max"]


def closed(result: dict[str, Any], key: str, _timestamp: int, _headers: object) -> dict[str, Any]:
    """Make the record of a closed window."""
    window = result["window"]
    service, _, endpoint = key.partition("|")
    return {
        "service": service,
        "endpoint": endpoint,
        "window_end_ms": result["end"],
        "count": window["count"],
        "errors": window["errors"],
        "mean_ms": window["sum"] / window["count"],
        "max_ms": window["max"],
        "p50_ms": quantile(window, 0.5),
        "p90_ms": quantile(window, 0.9),
        "p99_ms": quantile(window, 0.99),
    }


def main(servers: str, source: str, target: str, group: str, directory: str) -> None:
    """Run to the end."""
    app = Application(
        broker_address=servers,
        consumer_group=group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        state_dir=directory,
        loglevel="WARNING",
    )
    events = app.topic(
        source,
        value_deserializer="json",
        timestamp_extractor=lambda value, _headers, _time, _type: value["timestamp_ms"],
    )
    windows = app.topic(target, value_serializer="json")
    frame = app.dataframe(events)
    frame = frame.filter(lambda event: not event.get("heartbeat"))
    frame = frame.group_by(lambda event: f"{event['service']}|{event['endpoint']}", name="series")
    frame = frame.hopping_window(LENGTH_MS, SLIDE_MS, grace_ms=LATENESS_MS).agg(window=Reduce(more, first)).final()
    frame.apply(closed, metadata=True).to_topic(windows)
    app.run(timeout=QUIET_S)


if __name__ == "__main__":
    main(*sys.argv[1:])

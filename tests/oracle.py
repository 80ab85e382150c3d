"""An exact, slow and obvious reading of the contract's windows, for tests to hold the real ones against.

It shares no code with the kernels: plain dictionaries, `json`, and sorted samples.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

YEAR_2000_MS = 946_684_800_000


@dataclass
class Oracle:
    """Windows by the letter of the contract.

    Attributes:
        accepted: (service, endpoint) -> [(timestamp_ms, latency_us, is_error)].
        late: How many events were left out.
        heartbeats: How many heartbeats were seen.
        dead: (partition, offset, item) of everything rejected.
        tops: Highest event time of each partition.
    """

    length_ms: int = 60_000
    slide_ms: int = 10_000
    lateness_ms: int = 5_000
    max_future_ms: int = 60_000
    ttl_ms: int = 600_000
    accepted: dict[tuple[str, str], list[tuple[int, int, bool]]] = field(default_factory=lambda: defaultdict(list))
    late: int = 0
    heartbeats: int = 0
    dead: set[tuple[int, int, int | None]] = field(default_factory=set)
    tops: dict[int, int] = field(default_factory=dict)

    def record(self, partition: int, offset: int, value: bytes | None, kafka_ms: int) -> None:
        """Read one record, in the order of its partition."""
        items = self._items(value)
        if items is None:
            self.dead.add((partition, offset, None))
            return
        whole = len(items) == 1 and items[0][0] is None
        for number, item in items:
            event = self._event(item, kafka_ms)
            if event is None:
                self.dead.add((partition, offset, None if whole else number))
            else:
                self._count(partition, event)

    def windows(self) -> dict[tuple[str, str, int], dict[str, Any]]:
        """Give every window that accepted events are in or that a silent series still has, to the end of the job."""
        top_ms = max(self.tops.values())
        last_end = (top_ms // self.slide_ms) * self.slide_ms + self.length_ms
        return {
            (*series, end): self._window(samples, end)
            for series, samples in self.accepted.items()
            for end in self._ends(samples, last_end)
        }

    def _ends(self, samples: list[tuple[int, int, bool]], last_end: int) -> list[int]:
        """Window ends of one series: from its first pane until it has been silent for its time to live."""
        panes = sorted({timestamp // self.slide_ms for timestamp, _, _ in samples})
        ends: set[int] = set()
        for pane in panes:
            pane_end = (pane + 1) * self.slide_ms
            stop = min(max(pane_end + self.ttl_ms, pane_end - self.slide_ms + self.length_ms), last_end)
            ends.update(range(pane_end, stop + 1, self.slide_ms))
        return sorted(ends)

    def _window(self, samples: list[tuple[int, int, bool]], end: int) -> dict[str, Any]:
        inside = sorted(latency for timestamp, latency, _ in samples if end - self.length_ms <= timestamp < end)
        errors = sum(error for timestamp, _, error in samples if end - self.length_ms <= timestamp < end)
        n = len(inside)
        quantiles = {
            f"p{percent}_ms": inside[-(-percent * n // 100) - 1] / 1000 if n else None for percent in (50, 90, 99)
        }
        return {
            "count": n,
            "errors": errors,
            "error_ratio": errors / n if n else None,
            "mean_ms": sum(inside) / n / 1000 if n else None,
            "max_ms": inside[-1] / 1000 if n else None,
            **quantiles,
        }

    def _items(self, value: bytes | None) -> list[tuple[int | None, bytes]] | None:
        if value is None or not value.strip() or len(value) > 1_048_576:
            return None
        try:
            whole = json.loads(value)
        except (ValueError, RecursionError):
            lines = [line.strip() for line in value.split(b"\n") if line.strip()]
            if len(lines) > 1 and any(map(_is_json, lines)):
                return list(enumerate(lines))
            return None
        if isinstance(whole, list):
            return [(number, json.dumps(item).encode()) for number, item in enumerate(whole)]
        return [(None, value)]

    def _event(self, item: bytes, kafka_ms: int) -> dict[str, Any] | None:
        try:
            event = json.loads(item, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None
        if not isinstance(event, dict):
            return None
        timestamp = event.get("timestamp_ms")
        if type(timestamp) is not int or timestamp < YEAR_2000_MS or timestamp > kafka_ms + self.max_future_ms:
            return None
        if event.get("heartbeat") is True:
            return event
        latency, status = event.get("latency_ms"), event.get("status", 200)
        service, endpoint = event.get("service"), event.get("endpoint", "")
        good = (
            type(latency) in (int, float)
            and math.isfinite(latency)
            and latency >= 0
            and type(status) is int
            and 100 <= status <= 599
            and isinstance(service, str)
            and 1 <= len(service) <= 128
            and isinstance(endpoint, str)
            and len(endpoint) <= 256
        )
        return event if good else None

    def _count(self, partition: int, event: dict[str, Any]) -> None:
        timestamp = event["timestamp_ms"]
        pane_end = (timestamp // self.slide_ms + 1) * self.slide_ms
        top = self.tops.get(partition)
        late = top is not None and pane_end <= top - self.lateness_ms
        self.tops[partition] = timestamp if top is None else max(top, timestamp)
        if event.get("heartbeat") is True:
            self.heartbeats += 1
        elif late:
            self.late += 1
        else:
            series = (event["service"], event.get("endpoint", ""))
            latency_us = round(event["latency_ms"] * 1000)
            self.accepted[series].append((timestamp, latency_us, event.get("status", 200) >= 500))


def _refuse(constant: str) -> None:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

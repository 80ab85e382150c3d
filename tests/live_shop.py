"""A shop whose events are of now: services in a log, pane by pane, one of which is slow for a while."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING

from tests.kafka_log import NewRecord, produce

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.conftest import KafkaCluster, Topics

SLIDE_MS = 1_000
CALM_PANES = 60
EVENTS_IN_PANE = 100
SERVICES = ("cart", "checkout")
ILL_PANES = range(CALM_PANES, CALM_PANES + 6)
OVER_BY_PANE = CALM_PANES + 30
SMALL_WINDOWS = {
    "WINDOW__LENGTH_MS": "6000",
    "WINDOW__SLIDE_MS": str(SLIDE_MS),
    "WINDOW__ALLOWED_LATENESS_MS": "0",
}
"""Settings with which a minute of events is a history, and an alert opens and closes within seconds of them."""


class Shop:
    """Services in a log, pane by pane; one of them is slow for a while."""

    def __init__(
        self, kafka: KafkaCluster, topics: Topics, *, age_ms: int, ill_panes: Collection[int] = ILL_PANES
    ) -> None:
        """Begin some time ago.

        Args:
            kafka: Where to.
            topics: Whose events.
            age_ms: How long ago the first pane began.
            ill_panes: When the checkout is slow.
        """
        self._ill_panes = ill_panes
        self._kafka = kafka
        self._topics = topics
        self._began_ms = (int(time.time() * 1_000) - age_ms) // SLIDE_MS * SLIDE_MS
        self._pane = 0
        self._random = random.Random(5)

    def open_until(self, pane: int) -> None:
        """Write all panes before this one."""
        records = []
        for number in range(self._pane, pane):
            begin_ms = self._began_ms + number * SLIDE_MS
            events = [
                {"timestamp_ms": begin_ms + at, "service": service, "endpoint": "/", "latency_ms": self._latency(
                    slow=service == "checkout" and number in self._ill_panes)}
                for at in range(0, SLIDE_MS, SLIDE_MS * len(SERVICES) // EVENTS_IN_PANE)
                for service in SERVICES
            ]  # fmt: skip
            records.append(NewRecord(json.dumps(events).encode(), None, 0, timestamp_ms=begin_ms + SLIDE_MS))
            beat = json.dumps({"timestamp_ms": begin_ms + SLIDE_MS, "heartbeat": True}).encode()
            records += [NewRecord(beat, None, part, timestamp_ms=begin_ms + SLIDE_MS) for part in range(4)]
        self._pane = pane
        produce(self._kafka.client_options, self._topics.events, records)

    def _latency(self, *, slow: bool) -> float:
        return round(self._random.lognormvariate(3, 0.3) * (12 if slow else 1), 3)

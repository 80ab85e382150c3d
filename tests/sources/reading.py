"""The Kafka source by itself: opened, read, snapshotted and closed by hand, on a real broker."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from operators.kernels.intake import IntakeRules
from operators.vitals import Vitals
from sources.kafka import KafkaEventSource, KafkaPartition
from tests.dirty_log import START_MS, event
from tests.kafka_log import NewRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from operators.kernels.watermarks import Mark
    from sources.frame import KafkaFrame

TIMEOUT_S = 60.0
KAFKA_MS = START_MS + 3_600_000
RULES = IntakeRules(slide_ms=10_000, allowed_lateness_ms=5_000, max_future_ms=60_000)


def records(partition: int, count: int, *, service: str = "a", start_ms: int = START_MS) -> list[NewRecord]:
    """Events of one partition, a millisecond apart, numbered by their endpoints."""
    return [
        NewRecord(event(start_ms + number, service, f"/{number}"), None, partition, timestamp_ms=KAFKA_MS)
        for number in range(count)
    ]


def source_on(options: Mapping[str, str], topic: str, **changes: Any) -> KafkaEventSource:
    """A source that reads to the end; `changes` are fields of `KafkaEventSource`."""
    fields: dict[str, Any] = {
        "client": options,
        "topic": topic,
        "group_id": f"{topic}-group",
        "sources": 1,
        "shards": 4,
        "rules": RULES,
        "idle_after_ms": 600_000,
        "max_bytes": 1_048_576,
        "stop_at_end": True,
        "stopping": lambda: False,
        "vitals": Vitals("test", topic),
    }
    return KafkaEventSource(**{**fields, **changes})


@dataclass
class Reading:
    """What a source gave so far.

    Attributes:
        frames: Every frame, in order.
    """

    frames: list[KafkaFrame] = field(default_factory=list)

    def names(self) -> list[tuple[str, str]]:
        """Give service and endpoint of each accepted event, in the order read."""
        return [
            frame.places.series[frame.places.shard[code]][frame.places.number[code]]
            for frame in self.frames
            if frame.columns is not None
            for code in frame.columns.code.tolist()
        ]

    def events(self) -> Counter[str]:
        """Count accepted events by service."""
        return Counter(service for service, _ in self.names())

    def endpoints(self) -> list[str]:
        """Give the endpoint of each accepted event, in the order read."""
        return [endpoint for _, endpoint in self.names()]

    def marks(self) -> list[Mark]:
        """Give all news of partitions, in order."""
        return [mark for frame in self.frames if frame.news is not None for mark in frame.news.marks]

    def dead(self) -> list[tuple[int, bytes | None, dict[str, bytes]]]:
        """Give partition, value and headers of every dead letter, in order."""
        letters = [frame.dead for frame in self.frames if frame.dead is not None]
        return [
            (letter.partition, value, dict(headers))
            for letter in letters
            for value, headers in zip(letter.values, letter.headers, strict=True)
        ]


class Opened:
    """Sources that a test opened; they end with it."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __call__(self, source: KafkaEventSource, state: bytes | None = None, number: int = 0) -> KafkaPartition:
        """Open a source as Bytewax does."""
        part = source.build_part("flow.events", f"source-{number:03d}", state)
        self._stack.callback(part.close)
        return part

    def close(self) -> None:
        """Close all of them."""
        self._stack.close()


def read_all(part: KafkaPartition, timeout_s: float = TIMEOUT_S) -> Reading:
    """Read until the source ends."""
    reading = Reading()
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            reading.frames += part.next_batch()
            if part.next_awake() is not None:
                time.sleep(0.005)
    except StopIteration:
        return reading
    raise TimeoutError(f"the source did not end; it gave {sum(reading.events().values())} events")


def read_until(
    part: KafkaPartition,
    enough: Callable[[Reading], bool],
    *,
    reading: Reading | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Reading:
    """Read until what was read is enough.

    Args:
        part: An open source.
        enough: What must hold.
        reading: What was read before, which is added to.
        timeout_s: How long to try.
    """
    reading = reading or Reading()
    deadline = time.monotonic() + timeout_s
    while not enough(reading):
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {dict(reading.events())} and {len(reading.marks())} marks were read")
        reading.frames += part.next_batch()
        if part.next_awake() is not None:
            time.sleep(0.005)
    return reading

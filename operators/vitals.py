"""What one process knows of its own health: plain numbers that the flow writes and the Prometheus page reads.

Nothing that flows depends on them. They are written once a batch, and start at zero with the process.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from operators.kernels.intake import NO_TIME_MS

if TYPE_CHECKING:
    from operators.kernels.intake import Intake

Outcome = Literal["accepted", "late", "dead_letter", "heartbeat"]

OUTCOMES: Final[tuple[Outcome, ...]] = ("accepted", "late", "dead_letter", "heartbeat")

EPOCH_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
"""Upper bounds of the histogram of epoch durations, in seconds."""

_LONG_EPOCH_S: Final = 60.0
_LONG_EPOCH_INTERVALS: Final = 6


SILENT_AFTER_S: Final = 30.0
"""How long a cluster may say nothing, whatever it is asked: three times as long as between two questions."""


def stalled_after_s(snapshot_interval_s: float) -> float:
    """Tell how long an epoch, or the start, may take before nothing moves any more, in seconds."""
    return max(_LONG_EPOCH_S, _LONG_EPOCH_INTERVALS * snapshot_interval_s)


@dataclass(slots=True)
class PartitionVitals:
    """How far one partition of the input has been read.

    Attributes:
        lag_events: Records between the position and the end of the log.
        top_ms: Highest event time seen, None before the first.
        watermark_ms: `top_ms` less the allowed lateness, None before the first event.
        record_ms: Kafka timestamp of the last record read, None before the first.
        heartbeat_ms: Event time of the latest heartbeat, None before the first.
        at_end: Whether the position is at the end of the log.
    """

    lag_events: int = 0
    top_ms: int | None = None
    watermark_ms: int | None = None
    record_ms: int | None = None
    heartbeat_ms: int | None = None
    at_end: bool = False


@dataclass(slots=True)
class ShardVitals:
    """Numbers of one stateful step of one shard.

    Attributes:
        snapshot_bytes: Size of its last snapshot.
        series: How many series have windows; 0 in steps that don't count them.
        folded: How many times a new series was folded into `__overflow__`, once a pane.
        warming: How many series are too young to be judged; None in steps that judge none.
        held_back: How many anomalies opened no alert, by the reason; empty in steps that open none.
    """

    snapshot_bytes: int = 0
    series: int = 0
    folded: int = 0
    warming: int | None = None
    held_back: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Vitals:
    """Numbers of one process, shared by its workers.

    Attributes:
        flow: Name of the flow.
        topic: Name of the input topic.
        events: How many events had each outcome.
        sources: Names of the sources that live in this process; none in a process that only has shards.
        partitions: State of each partition of the input that this process reads.
        shards: Numbers of each stateful step of each shard that lives in this process.
        epoch_counts: Epochs by duration: one count for each bound in `EPOCH_BUCKETS_S`, and one for the rest.
        epoch_seconds: Sum of the durations of all epochs.
    """

    flow: str
    topic: str
    events: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    sources: set[str] = field(default_factory=set)
    partitions: dict[int, PartitionVitals] = field(default_factory=lambda: defaultdict(PartitionVitals))
    shards: list[ShardVitals] = field(default_factory=list)
    epoch_counts: list[int] = field(default_factory=lambda: [0] * (len(EPOCH_BUCKETS_S) + 1))
    epoch_seconds: float = 0.0
    _answered_s: float | None = None
    _epoch_began: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, outcome: Outcome, events: int) -> None:
        """Add events to an outcome."""
        if events:
            with self._lock:
                self.events[outcome] += events

    def took(self, partition: int, got: Intake, record_ms: int, allowed_lateness_ms: int) -> None:
        """Write down what a batch of one partition brought.

        Args:
            partition: Number of the partition.
            got: What was taken in.
            record_ms: Kafka timestamp of its last record.
            allowed_lateness_ms: How far the watermark stays behind.
        """
        self.count("late", got.late)
        self.count("heartbeat", got.heartbeats)
        self.count("dead_letter", len(got.rejects))
        progress = self.partitions[partition]
        progress.record_ms = record_ms
        if got.top_ms != NO_TIME_MS:
            progress.top_ms = got.top_ms
            progress.watermark_ms = got.top_ms - allowed_lateness_ms
        if got.heartbeats:
            progress.heartbeat_ms = max(progress.heartbeat_ms or 0, got.heartbeat_ms)

    def source_begins(self, name: str) -> bool:
        """Note that a source lives in this process, and tell whether it is the first."""
        self.sources.add(name)
        self.cluster_answered()
        return len(self.sources) == 1

    def cluster_answered(self) -> None:
        """Note that the cluster of the input said something, were it only that there is nothing new."""
        self._answered_s = time.monotonic()

    def cluster_is_silent(self) -> bool:
        """Tell whether it has said nothing for so long that nobody knows where the log ends now."""
        return self._answered_s is not None and time.monotonic() - self._answered_s > SILENT_AFTER_S

    def shard(self) -> ShardVitals:
        """Make room for the numbers of one more step of one more shard."""
        shard = ShardVitals()
        self.shards.append(shard)
        return shard

    def epoch_ended(self, source: str) -> None:
        """Note that a source took its snapshot, which ends an epoch of it.

        Args:
            source: Name of the source shard.
        """
        now = time.monotonic()
        with self._lock:
            began = self._epoch_began.get(source)
            self._epoch_began[source] = now
            if began is not None:
                self.epoch_counts[bisect.bisect_left(EPOCH_BUCKETS_S, now - began)] += 1
                self.epoch_seconds += now - began

    def epoch_age_s(self) -> float | None:
        """Tell how long the oldest epoch has been open, in seconds; None before the first snapshot."""
        with self._lock:
            began = min(self._epoch_began.values(), default=None)
        return None if began is None else time.monotonic() - began

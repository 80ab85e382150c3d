"""From frames to the records of each output topic: which partition, which bytes, which identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from operators.kernels.encode import WireRecords, alert_records, alert_state_records, window_records
from sinks.records import OutputRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from operators.alert import AlertFrame
    from operators.kernels.frames import ScoredFrame, Transition
    from sources.frame import KafkaFrame

Routed = tuple[str, OutputRecords]
"""Records with the route that chooses their output partition."""

WINDOW_HEADERS: Final = (("schema", b"window/1"), ("content-type", b"application/json"))
ALERT_HEADERS: Final = (("schema", b"alert/1"), ("content-type", b"application/json"))

_F = TypeVar("_F")


def windows(frames: Sequence[tuple[str, ScoredFrame]], partitions: int) -> list[Routed]:
    """Encode closed windows for `telemetry.windows`.

    Args:
        frames: Scored frames with their shards.
        partitions: Partitions of the topic; all series of a shard go to one.

    Returns:
        Records of all frames that go to the same partition, together.
    """
    return [
        (route, _records(window_records(group), min(frame.windows.window_end_ms for frame in group)))
        for route, group in _by_partition(frames, partitions).items()
    ]


def alerts(frames: Sequence[tuple[str, AlertFrame]], partitions: int) -> list[Routed]:
    """Encode alert transitions for `telemetry.alerts`; arguments and result as in `windows`."""
    return _transitions(frames, partitions, alert_records)


def alert_states(frames: Sequence[tuple[str, AlertFrame]], partitions: int) -> list[Routed]:
    """Encode alert transitions for `telemetry.alerts.state`; arguments and result as in `windows`."""
    return _transitions(frames, partitions, alert_state_records)


def dead_letters(frames: Sequence[KafkaFrame], partitions: int) -> list[Routed]:  # noqa: ARG001 - the sink wraps around
    """Encode what frames rejected for `telemetry.dead-letter`: bytes and key unchanged, in the partition they had."""
    return [
        (
            f"partition-{dead.partition}",
            OutputRecords(dead.keys, dead.values, dead.ids, dead.headers, dead.time_ms),
        )
        for frame in frames
        if (dead := frame.dead) is not None
    ]


def _transitions(
    frames: Sequence[tuple[str, AlertFrame]], partitions: int, encode: Callable[[Iterable[Transition]], WireRecords]
) -> list[Routed]:
    changed = [(shard, frame) for shard, frame in frames if frame.transitions]
    return [
        (
            route,
            _records(
                encode(transition for frame in group for transition in frame.transitions),
                min(frame.window_end_ms for frame in group),
            ),
        )
        for route, group in _by_partition(changed, partitions).items()
    ]


def _by_partition(frames: Sequence[tuple[str, _F]], partitions: int) -> dict[str, list[_F]]:
    """Group the frames of shards by the output partition of the shard, in their order."""
    groups: dict[str, list[_F]] = {}
    for shard, frame in frames:
        groups.setdefault(f"partition-{int(shard.rpartition('-')[2]) % partitions}", []).append(frame)
    return groups


def _records(wire: WireRecords, expire_ms: int) -> OutputRecords:
    return OutputRecords(wire.keys, wire.values, wire.ids, None, expire_ms)

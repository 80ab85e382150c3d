"""From frames to the records of each output topic: which partition, which bytes, which identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from operators.kernels.encode import WireRecords, alert_records, alert_state_records, window_records
from sinks.records import OutputRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from operators.alert import AlertFrame
    from operators.kernels.frames import ScoredFrame, Transition
    from sources.kafka import KafkaFrame

Routed = tuple[str, OutputRecords]
"""Records with the route that chooses their output partition."""

WINDOW_HEADERS: Final = (("schema", b"window/1"), ("content-type", b"application/json"))
ALERT_HEADERS: Final = (("schema", b"alert/1"), ("content-type", b"application/json"))

_F = TypeVar("_F")


def windows_of(partitions: int) -> Callable[[list[tuple[str, ScoredFrame]]], list[Routed]]:
    """Make the encoder of `telemetry.windows`.

    Args:
        partitions: Partitions of the topic; all series of a shard go to one.
    """

    def encode(frames: list[tuple[str, ScoredFrame]]) -> list[Routed]:
        return [
            (route, _records(window_records(group), min(frame.windows.window_end_ms for frame in group)))
            for route, group in _by_partition(frames, partitions).items()
        ]

    return encode


def alerts_of(partitions: int) -> Callable[[list[tuple[str, AlertFrame]]], list[Routed]]:
    """Make the encoder of `telemetry.alerts`.

    Args:
        partitions: Partitions of the topic.
    """
    return _alert_encoder(partitions, alert_records)


def alert_states_of(partitions: int) -> Callable[[list[tuple[str, AlertFrame]]], list[Routed]]:
    """Make the encoder of `telemetry.alerts.state`.

    Args:
        partitions: Partitions of the topic.
    """
    return _alert_encoder(partitions, alert_state_records)


def dead_letters_of(frame: KafkaFrame) -> list[Routed]:
    """Encode what a frame rejected: bytes and key unchanged, in the partition of the same number."""
    dead = frame.dead
    if dead is None:
        return []
    records = OutputRecords(dead.keys, dead.values, dead.ids, dead.headers, dead.time_ms)
    return [(f"partition-{dead.partition}", records)]


def _alert_encoder(
    partitions: int, encode_transitions: Callable[[Iterable[Transition]], WireRecords]
) -> Callable[[list[tuple[str, AlertFrame]]], list[Routed]]:
    def encode(frames: list[tuple[str, AlertFrame]]) -> list[Routed]:
        changed = [(shard, frame) for shard, frame in frames if frame.transitions]
        return [
            (
                route,
                _records(
                    encode_transitions(transition for frame in group for transition in frame.transitions),
                    min(frame.window_end_ms for frame in group),
                ),
            )
            for route, group in _by_partition(changed, partitions).items()
        ]

    return encode


def _by_partition(frames: Sequence[tuple[str, _F]], partitions: int) -> dict[str, list[_F]]:
    """Group the frames of shards by the output partition of the shard, in their order."""
    groups: dict[str, list[_F]] = {}
    for shard, frame in frames:
        groups.setdefault(f"partition-{int(shard.rpartition('-')[2]) % partitions}", []).append(frame)
    return groups


def _records(wire: WireRecords, expire_ms: int) -> OutputRecords:
    return OutputRecords(wire.keys, wire.values, wire.ids, None, expire_ms)

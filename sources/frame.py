"""What the source hands on: frames of the events of one partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from operators.shard import EventFrame

if TYPE_CHECKING:
    from operators.kernels.intake import EventColumns
    from sources.dead_letters import DeadLetters


@dataclass(frozen=True, slots=True)
class KafkaFrame(EventFrame):
    """A frame of events with what else their records brought.

    Attributes:
        dead: Rejected records and items; None when there are none.
        partition: Partition of the events; -1 for a frame that brings only news.
        details: What the flow asked for of each read, in the order of the columns; empty when it asked for nothing.
    """

    dead: DeadLetters | None
    partition: int = -1
    details: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """What a few records of one partition brought.

    Attributes:
        columns: Accepted events.
        rows: How many items there were, rejected ones too.
        dead: Rejected records and items; None when there are none.
        detail: What the flow asked for; None when it asked for nothing.
    """

    columns: EventColumns
    rows: int
    dead: DeadLetters | None
    detail: Any

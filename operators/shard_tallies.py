"""Split frames of events by shard for the bridge, with status codes and traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream

from operators.kernels.tally_rows import TallyRows, split_tallies
from operators.kernels.watermarks import Marks
from operators.shard import addressed

if TYPE_CHECKING:
    from operators.kernels.intake import EventColumns
    from operators.kernels.series import Places


class DetailedFrame(Protocol):
    """A frame of events whose details are `Traits`."""

    @property
    def columns(self) -> EventColumns | None:
        """Accepted events."""

    @property
    def places(self) -> Places:
        """Where their series belong."""

    @property
    def news(self) -> Marks | None:
        """Progress of event time."""

    @property
    def details(self) -> tuple[Any, ...]:
        """Traits of each read, in the order of the columns."""


@operator
def shard_tallies(step_id: str, up: Stream[DetailedFrame], *, shards: int) -> KeyedStream[TallyRows | Marks]:
    """Send rows to their shards and news to all of them.

    Args:
        step_id: Unique name of this step.
        up: Frames of events.
        shards: Number of shards.

    Returns:
        Rows and news by shard; the news of a frame follow its rows.
    """

    def split(frame: DetailedFrame) -> list[tuple[int, TallyRows]]:
        return [] if frame.columns is None else split_tallies(frame.columns, frame.places, frame.details)

    return addressed(up, split, shards)

"""Split frames of events by shard, and tell every shard how far event time has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import bytewax.operators as op
from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream

from operators.kernels.sharding import PaneRows, split_by_shard
from operators.kernels.watermarks import Marks

if TYPE_CHECKING:
    from collections.abc import Callable

    from operators.kernels.intake import EventColumns
    from operators.kernels.series import Places, Sightings

R = TypeVar("R")


class WithNews(Protocol):
    """A frame that may tell of the progress of event time."""

    @property
    def news(self) -> Marks | None:
        """Progress of event time; None when nothing crossed a pane."""


X = TypeVar("X", bound=WithNews)


@dataclass(frozen=True, slots=True)
class EventFrame:
    """Events of one partition as they leave the source, or news of its progress.

    Attributes:
        columns: Accepted events; None when the frame brings only news.
        places: Where the series codes belong.
        sightings: Series that the census has not heard of in these panes; None when there are none.
        news: Progress of event time, to be told to every shard after the events; None when nothing crossed a pane.
    """

    columns: EventColumns | None
    places: Places
    sightings: Sightings | None
    news: Marks | None


def shard_name(shard: int) -> str:
    """Name a shard: the key of its state, a storage format."""
    return f"shard-{shard:02d}"


@operator
def shard(step_id: str, up: Stream[EventFrame], *, shards: int) -> KeyedStream[PaneRows | Marks]:
    """Send rows to their shards and news to all of them.

    Args:
        step_id: Unique name of this step.
        up: Frames of events.
        shards: Number of shards.

    Returns:
        Rows and news by shard; the news of a frame follow its rows.
    """

    def split(frame: EventFrame) -> list[tuple[int, PaneRows]]:
        return [] if frame.columns is None else split_by_shard(frame.columns, frame.places)

    return addressed(up, split, shards)


def addressed(up: Stream[X], split: Callable[[X], list[tuple[int, R]]], shards: int) -> KeyedStream[R | Marks]:
    """Send the rows of frames to their shards, and then their news to all of them.

    Args:
        up: Frames of events.
        split: Gives the rows of a frame by number of shard.
        shards: Number of shards.

    Returns:
        Rows and news by shard; the news of a frame follow its rows.
    """
    keys = [shard_name(number) for number in range(shards)]

    def address(frame: X) -> list[tuple[str, R | Marks]]:
        items: list[tuple[str, R | Marks]] = [(keys[number], rows) for number, rows in split(frame)]
        if frame.news is not None:
            items += [(key, frame.news) for key in keys]
        return items

    return op.flat_map("split", up, address)

"""The limit on the number of series, over all shards."""

from __future__ import annotations

from typing import Final, TypeAlias

import bytewax.operators as op
from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream

from operators.kernels.census import Census, Verdict
from operators.kernels.codec import pack, unpack
from operators.kernels.series import Sightings
from operators.kernels.watermarks import Mark, Marks, Watermarks
from operators.kernels.window_rules import WindowRules
from operators.reporting import reported
from operators.shard import EventFrame, shard_name
from operators.stateful import ShardLogic
from operators.vitals import Vitals

_KEY: Final = "census"
_KIND: Final = "census-step"
_VERSION: Final = 1

Addressed: TypeAlias = tuple[str, Verdict]


class CensusState:
    """The census, advanced as event time completes over all partitions."""

    def __init__(self, census: Census, rules: WindowRules, marks: dict[int, Mark]) -> None:
        """Start, or go on with a resumed census and marks.

        Args:
            census: The census.
            rules: Settings of the windows.
            marks: Last known progress of each partition.
        """
        self._census = census
        self._watermarks = Watermarks(slide_ms=rules.slide_ms, panes_in_window=rules.panes_in_window, marks=marks)

    @classmethod
    def from_bytes(cls, rules: WindowRules, shards: int, data: bytes) -> CensusState:
        """Resume from a snapshot.

        Raises:
            StateError: The bytes are damaged or of a layout that this release does not read.
        """
        _, values, _ = unpack(_KIND, (_VERSION,), data)
        return cls(Census.from_bytes(rules, shards, values["census"]), rules, Watermarks.restored(values["marks"]))

    def step(self, item: Sightings | Marks) -> list[Addressed]:
        """Note sightings, or decide the panes that news of event time complete."""
        if isinstance(item, Sightings):
            self._census.add(item)
            return []
        self._watermarks.apply(item)
        complete = self._watermarks.complete()
        verdicts = [] if complete is None else self._census.advance(complete)
        return [(shard_name(number), verdict) for number, verdict in enumerate(verdicts)]

    def to_bytes(self) -> bytes:
        """Encode the census and the marks it waits for."""
        values = {"marks": self._watermarks.plain(), "census": self._census.to_bytes()}
        return pack(_KIND, _VERSION, values, {})


@operator
def census(
    step_id: str, up: Stream[EventFrame], *, rules: WindowRules, shards: int, vitals: Vitals
) -> KeyedStream[Verdict]:
    """Decide which series have windows of their own.

    Args:
        step_id: Unique name of this step.
        up: Frames of events.
        rules: The limit, and how long a silent series keeps its place.
        shards: Number of shards.
        vitals: Where the size of snapshots is noted.

    Returns:
        For each shard how far panes are decided, and which of its series are folded.
    """

    def told(frame: EventFrame) -> list[tuple[str, Sightings | Marks]]:
        return [(_KEY, item) for item in (frame.sightings, frame.news) if item is not None]

    @reported
    def build(data: bytes | None) -> ShardLogic[Sightings | Marks, Addressed]:
        state = (
            CensusState(Census(rules, shards), rules, {})
            if data is None
            else CensusState.from_bytes(rules, shards, data)
        )
        return ShardLogic(state, vitals.shard())

    decided = op.stateful_batch("state", op.flat_map("told", up, told), build)
    return op.key_rm("address", decided)

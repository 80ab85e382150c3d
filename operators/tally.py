"""Counters and histograms of each shard, cumulative, at the end of every pane."""

from __future__ import annotations

from typing import Final

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.kernels.census import Verdict
from operators.kernels.codec import pack, unpack
from operators.kernels.tallies import Tallies
from operators.kernels.tally_frame import TallyFrame
from operators.kernels.tally_rows import TallyRows
from operators.kernels.watermarks import Mark, Marks, Watermarks
from operators.kernels.windows import WindowRules
from operators.reporting import reported
from operators.stateful import ShardLogic
from operators.vitals import ShardVitals, Vitals

_KIND: Final = "tally"
_VERSION: Final = 1


class ShardTallies:
    """Tallies of one shard, told as event time completes over all partitions."""

    def __init__(self, tallies: Tallies, marks: dict[int, Mark], vitals: Vitals, numbers: ShardVitals) -> None:
        """Start, or go on with resumed tallies and marks.

        Args:
            tallies: The tallies.
            marks: Last known progress of each partition.
            vitals: Where events are counted.
            numbers: Where series are counted.
        """
        self._tallies = tallies
        self._watermarks = Watermarks(slide_ms=tallies.rules.slide_ms, panes_in_window=1, marks=marks)
        self._vitals = vitals
        self._numbers = numbers
        self._decided: int | None = None

    @classmethod
    def from_bytes(cls, rules: WindowRules, data: bytes, vitals: Vitals, numbers: ShardVitals) -> ShardTallies:
        """Resume from a snapshot.

        Raises:
            StateError: The bytes are damaged or of a layout that this release does not read.
        """
        _, values, _ = unpack(_KIND, (_VERSION,), data)
        self = cls(Tallies.from_bytes(rules, values["tallies"]), Watermarks.restored(values["marks"]), vitals, numbers)
        self._decided = values["decided"]
        return self

    def step(self, item: TallyRows | Marks | Verdict) -> list[TallyFrame]:
        """Count rows, or close the panes that are complete and decided."""
        if isinstance(item, TallyRows):
            accepted, late = self._tallies.add(item)
            self._vitals.count("accepted", accepted)
            self._vitals.count("late", late)
            return []
        if isinstance(item, Verdict):
            self._decided = item.decided
            self._tallies.fold(item.folded)
        else:
            self._watermarks.apply(item)
        complete = self._watermarks.complete()
        if complete is None or self._decided is None:
            return []
        frames = self._tallies.advance(min(complete, self._decided))
        if frames:
            self._numbers.series, self._numbers.folded = self._tallies.series, self._tallies.folded
        return frames

    def to_bytes(self) -> bytes:
        """Encode the tallies and the marks they wait for."""
        values = {
            "marks": self._watermarks.plain(),
            "decided": self._decided,
            "tallies": self._tallies.to_bytes(),
        }
        return pack(_KIND, _VERSION, values, {})


@operator
def tally(
    step_id: str,
    rows: KeyedStream[TallyRows | Marks],
    verdicts: KeyedStream[Verdict],
    *,
    rules: WindowRules,
    vitals: Vitals,
) -> KeyedStream[TallyFrame]:
    """Count requests for ever.

    Args:
        step_id: Unique name of this step.
        rows: Rows and news of event time, by shard.
        verdicts: Which series have counters of their own, by shard.
        rules: Length of a pane, and limits; windows are as long as panes.
        vitals: Where events and series are counted.

    Returns:
        One frame for each shard and pane, when all partitions have passed its end and the census has decided.
    """

    @reported
    def build(data: bytes | None) -> ShardLogic[TallyRows | Marks | Verdict, TallyFrame]:
        numbers = vitals.shard()
        if data is None:
            return ShardLogic(ShardTallies(Tallies(rules), {}, vitals, numbers), numbers)
        return ShardLogic(ShardTallies.from_bytes(rules, data, vitals, numbers), numbers)

    return op.stateful_batch("state", op.merge("both", rows, verdicts), build)

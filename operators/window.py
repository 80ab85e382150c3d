"""Sliding windows over the rows of each shard."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.kernels.census import Verdict
from operators.kernels.codec import pack, unpack
from operators.kernels.frames import WindowFrame
from operators.kernels.sharding import PaneRows
from operators.kernels.watermarks import Mark, Marks, Watermarks
from operators.kernels.windows import WindowRules, Windows
from operators.reporting import reported
from operators.stateful import ShardLogic
from operators.vitals import ShardVitals, Vitals

_KIND: Final = "window"
_VERSION: Final = 1


class ShardWindows:
    """Windows of one shard, closed as event time completes over all partitions."""

    def __init__(self, windows: Windows, marks: dict[int, Mark], vitals: Vitals, numbers: ShardVitals) -> None:
        """Start, or go on with resumed windows and marks.

        Args:
            windows: The windows.
            marks: Last known progress of each partition.
            vitals: Where events are counted.
            numbers: Where series are counted.
        """
        rules = windows.rules
        self._windows = windows
        self._watermarks = Watermarks(slide_ms=rules.slide_ms, panes_in_window=rules.panes_in_window, marks=marks)
        self._vitals = vitals
        self._numbers = numbers
        self._decided: int | None = None

    @classmethod
    def from_bytes(cls, rules: WindowRules, data: bytes, vitals: Vitals, numbers: ShardVitals) -> ShardWindows:
        """Resume from a snapshot.

        Raises:
            StateError: The bytes are damaged or of a layout that this release does not read.
        """
        _, values, _ = unpack(_KIND, (_VERSION,), data)
        self = cls(Windows.from_bytes(rules, values["windows"]), Watermarks.restored(values["marks"]), vitals, numbers)
        self._decided = values["decided"]
        return self

    def step(self, item: PaneRows | Marks | Verdict) -> list[WindowFrame]:
        """Count rows, or close the windows of panes that are complete and decided."""
        if isinstance(item, PaneRows):
            accepted, late = self._windows.add(item)
            self._vitals.count("accepted", accepted)
            self._vitals.count("late", late)
            return []
        if isinstance(item, Verdict):
            self._decided = item.decided
            self._windows.fold(item.folded)
        else:
            self._watermarks.apply(item)
        complete = self._watermarks.complete()
        if complete is None or self._decided is None:
            return []
        frames = self._marked(self._windows.advance(min(complete, self._decided)))
        if frames:
            self._numbers.series, self._numbers.folded = self._windows.series, self._windows.folded
        return frames

    def _marked(self, frames: list[WindowFrame]) -> list[WindowFrame]:
        """Mark the windows that were closed although event time did not get to their end."""
        top_ms = self._watermarks.top_ms()
        return [replace(frame, cut_short=True) if frame.window_end_ms > top_ms else frame for frame in frames]

    def to_bytes(self) -> bytes:
        """Encode the windows and the marks they wait for."""
        values = {
            "marks": self._watermarks.plain(),
            "decided": self._decided,
            "windows": self._windows.to_bytes(),
        }
        return pack(_KIND, _VERSION, values, {})


@operator
def window(
    step_id: str,
    rows: KeyedStream[PaneRows | Marks],
    verdicts: KeyedStream[Verdict],
    *,
    rules: WindowRules,
    vitals: Vitals,
) -> KeyedStream[WindowFrame]:
    """Gather rows in sliding windows.

    Args:
        step_id: Unique name of this step.
        rows: Rows and news of event time, by shard.
        verdicts: Which series have windows of their own, by shard.
        rules: Length, slide and limits.
        vitals: Where events and series are counted.

    Returns:
        One frame for each shard and window end, when all partitions have passed it and the census has decided.
    """

    @reported
    def build(data: bytes | None) -> ShardLogic[PaneRows | Marks | Verdict, WindowFrame]:
        numbers = vitals.shard()
        if data is None:
            return ShardLogic(ShardWindows(Windows(rules), {}, vitals, numbers), numbers)
        return ShardLogic(ShardWindows.from_bytes(rules, data, vitals, numbers), numbers)

    return op.stateful_batch("state", op.merge("both", rows, verdicts), build)

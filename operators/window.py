"""Sliding windows over the rows of each shard."""

from __future__ import annotations

from dataclasses import replace

from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.closing import ClosingShard, closed
from operators.kernels.census import Verdict
from operators.kernels.frames import WindowFrame
from operators.kernels.sharding import PaneRows
from operators.kernels.watermarks import Marks
from operators.kernels.window_rules import WindowRules
from operators.kernels.windows import Windows
from operators.vitals import Vitals


class ShardWindows(ClosingShard[PaneRows, WindowFrame]):
    """Windows of one shard."""

    KIND = "window"
    KERNEL = Windows

    def step(self, item: PaneRows | Marks | Verdict) -> list[WindowFrame]:
        """Count rows, or close windows; those that are closed although event time did not get to their end say so."""
        frames = super().step(item)
        top_ms = self._watermarks.top_ms() if frames else 0
        return [replace(frame, cut_short=True) if frame.window_end_ms > top_ms else frame for frame in frames]


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
    return closed(rows, verdicts, ShardWindows, rules, vitals)

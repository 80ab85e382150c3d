"""Counters and histograms of each shard, cumulative, at the end of every pane."""

from __future__ import annotations

from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.closing import ClosingShard, closed
from operators.kernels.census import Verdict
from operators.kernels.tallies import Tallies
from operators.kernels.tally_frame import TallyFrame
from operators.kernels.tally_rows import TallyRows
from operators.kernels.watermarks import Marks
from operators.kernels.window_rules import WindowRules
from operators.vitals import Vitals


class ShardTallies(ClosingShard[TallyRows, TallyFrame]):
    """Tallies of one shard."""

    KIND = "tally"
    KERNEL = Tallies


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
    return closed(rows, verdicts, ShardTallies, rules, vitals)

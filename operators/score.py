"""Anomaly scores of closed windows."""

from __future__ import annotations

import bytewax.operators as op
import numpy as np
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.kernels.frames import WARMING, ScoredFrame, WindowFrame
from operators.kernels.scoring import Scorer, ScoringConfig
from operators.kernels.window_rules import WindowRules
from operators.reporting import reported
from operators.stateful import ShardLogic
from operators.vitals import ShardVitals, Vitals


class ShardScores:
    """The scorer of one shard."""

    def __init__(self, scorer: Scorer, numbers: ShardVitals) -> None:
        """Wrap a scorer, new or resumed.

        Args:
            scorer: The scorer.
            numbers: Where series that are warming are counted.
        """
        self._scorer = scorer
        self._numbers = numbers

    def step(self, frame: WindowFrame) -> list[ScoredFrame]:
        """Score the windows of one end."""
        scored = self._scorer.step(frame)
        self._numbers.warming = int(np.count_nonzero(scored.state == WARMING))
        return [scored]

    def to_bytes(self) -> bytes:
        """Encode what the detectors have learned."""
        return self._scorer.to_bytes()


@operator
def score(
    step_id: str, up: KeyedStream[WindowFrame], *, config: ScoringConfig, rules: WindowRules, vitals: Vitals
) -> KeyedStream[ScoredFrame]:
    """Score each closed window against what its series has done before.

    Args:
        step_id: Unique name of this step.
        up: Closed windows, by shard.
        config: Settings of the detectors.
        rules: Length and slide of the windows.
        vitals: Where the size of snapshots is noted.

    Returns:
        The same windows with scores and bands.
    """

    @reported
    def build(data: bytes | None) -> ShardLogic[WindowFrame, ScoredFrame]:
        if data is None:
            scorer = Scorer(config, rules.slide_ms, rules.length_ms)
        else:
            scorer = Scorer.from_bytes(config, rules.slide_ms, rules.length_ms, data)
        numbers = vitals.shard()
        return ShardLogic(ShardScores(scorer, numbers), numbers)

    return op.stateful_batch("state", up, build)

"""Anomaly scores of closed windows."""

from __future__ import annotations

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.kernels.frames import ScoredFrame, WindowFrame
from operators.kernels.scoring import Scorer, ScoringConfig
from operators.kernels.windows import WindowRules
from operators.reporting import reported
from operators.stateful import ShardLogic
from operators.vitals import Vitals


class ShardScores:
    """The scorer of one shard."""

    def __init__(self, scorer: Scorer) -> None:
        """Wrap a scorer, new or resumed."""
        self._scorer = scorer

    def step(self, frame: WindowFrame) -> list[ScoredFrame]:
        """Score the windows of one end."""
        return [self._scorer.step(frame)]

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
        return ShardLogic(ShardScores(scorer), vitals.shard())

    return op.stateful_batch("state", up, build)

"""Anomaly scores of closed windows."""

from __future__ import annotations

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.kernels.frames import ScoredFrame, WindowFrame
from operators.kernels.scoring import Scorer, ScoringConfig
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
    step_id: str, up: KeyedStream[WindowFrame], *, config: ScoringConfig, slide_ms: int, length_ms: int, vitals: Vitals
) -> KeyedStream[ScoredFrame]:
    """Score each closed window against what its series has done before.

    Args:
        step_id: Unique name of this step.
        up: Closed windows, by shard.
        config: Settings of the detectors.
        slide_ms: Distance of two window ends.
        length_ms: Length of a window.
        vitals: Where the size of snapshots is noted.

    Returns:
        The same windows with scores and bands.
    """

    def build(data: bytes | None) -> ShardLogic[WindowFrame, ScoredFrame]:
        scorer = (
            Scorer(config, slide_ms, length_ms)
            if data is None
            else Scorer.from_bytes(config, slide_ms, length_ms, data)
        )
        return ShardLogic(ShardScores(scorer), vitals.shard())

    return op.stateful_batch("state", up, build)

"""Alert episodes: from scores to what a person is told, once."""

from __future__ import annotations

from dataclasses import dataclass

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.kernels.episodes import EpisodeConfig, Episodes
from operators.kernels.frames import ScoredFrame, Transition
from operators.reporting import reported
from operators.stateful import ShardLogic
from operators.vitals import ShardVitals, Vitals


@dataclass(frozen=True, slots=True)
class AlertFrame:
    """The alerts of one shard after one window end.

    Attributes:
        window_end_ms: The window end.
        transitions: Episodes that opened or closed with it.
        firing: All episodes that are open after it.
    """

    window_end_ms: int
    transitions: list[Transition]
    firing: list[Transition]


class ShardEpisodes:
    """The episodes of one shard."""

    def __init__(self, episodes: Episodes, vitals: ShardVitals) -> None:
        """Wrap episodes, new or resumed.

        Args:
            episodes: The kernel.
            vitals: Where anomalies that were held back are counted.
        """
        self._episodes = episodes
        self._vitals = vitals

    def step(self, frame: ScoredFrame) -> list[AlertFrame]:
        """Open, hold and resolve episodes; quiet shards say nothing."""
        transitions = self._episodes.step(frame)
        for held in self._episodes.held_back():
            self._vitals.held_back[held.reason] = self._vitals.held_back.get(held.reason, 0) + 1
        firing = self._episodes.firing()
        return [AlertFrame(frame.windows.window_end_ms, transitions, firing)] if transitions or firing else []

    def again(self) -> list[AlertFrame]:
        """Give what is open once more, if anything is."""
        firing, end_ms = self._episodes.firing(), self._episodes.end_ms
        return [] if end_ms is None or not firing else [AlertFrame(end_ms, [], firing)]

    def to_bytes(self) -> bytes:
        """Encode the open episodes and what may become one."""
        return self._episodes.to_bytes()


@operator
def alert(
    step_id: str, up: KeyedStream[ScoredFrame], *, config: EpisodeConfig, vitals: Vitals
) -> KeyedStream[AlertFrame]:
    """Turn scores into alert episodes.

    Args:
        step_id: Unique name of this step.
        up: Scored windows, by shard.
        config: Settings of the episodes.
        vitals: Where the size of snapshots is noted.

    Returns:
        What changed and what is open, whenever either is not nothing.
    """

    @reported
    def build(data: bytes | None) -> ShardLogic[ScoredFrame, AlertFrame]:
        episodes = Episodes(config) if data is None else Episodes.from_bytes(config, data)
        of_shard = vitals.shard()
        state = ShardEpisodes(episodes, of_shard)
        return ShardLogic(state, of_shard, None if data is None else state.again)

    return op.stateful_batch("state", up, build)

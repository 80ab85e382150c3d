"""The nearest-neighbour channel as a detector for chosen series of the flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.codec import pack, unpack
from operators.kernels.frames import SIGNALS
from operators.kernels.scoring.neighbours import Neighbours, NeighboursConfig
from operators.kernels.scoring.protocol import Opinion
from operators.kernels.scoring.signals import ERRORS, LATENCY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.frames import WindowFrame
    from operators.kernels.scoring.protocol import WindowSpan

_KIND: Final = "novelty"
_VERSION: Final = 1

_USUAL: Final = NeighboursConfig()


class Novelty:
    """How new the run of the last windows is, for latency, errors and traffic alike.

    It has no band: a pattern may be new though each of its values is usual. So it is used behind the gates of the
    default detector: a new pattern counts where the value is also far enough from the expected one, upwards for latency
    and errors. State is 64 KiB a signal and series, a step about 20 µs; it is meant for tens of series.
    """

    def __init__(
        self,
        span: WindowSpan,
        state: bytes | None = None,
        *,
        memory_windows: int = _USUAL.memory,
        ratio: float = _USUAL.ratio,
        min_count: int = 20,
    ) -> None:
        """Start with nothing, or go on.

        Args:
            span: The windows that come in.
            state: What `to_bytes` gave under the same options.
            memory_windows: Runs, one a window length, that are remembered.
            ratio: How many times the usual distance has a score of 1.
            min_count: Requests that a window needs for its P99 to mean anything.

        Raises:
            ValueError: An option is impossible.
            StateError: The state is of something else.
        """
        if memory_windows <= _USUAL.warm_runs or ratio <= 0:
            msg = (
                f"`memory_windows` must be more than {_USUAL.warm_runs} and `ratio` positive, "
                f"or nothing could be judged; got {memory_windows} and {ratio}"
            )
            raise ValueError(msg)
        self._span = span
        self._min_count = min_count
        config = NeighboursConfig(overlap=span.overlap, memory=int(memory_windows), ratio=ratio)
        if state is None:
            self._neighbours = [Neighbours(config) for _ in SIGNALS]
        else:
            _, values, _ = unpack(_KIND, (_VERSION,), state)
            self._neighbours = [Neighbours.from_bytes(config, data) for data in values["signals"]]

    def align(self, carry: NDArray[np.int64]) -> None:
        """Reorder, drop and add series."""
        for neighbours in self._neighbours:
            neighbours.align(carry)

    def step(self, frame: WindowFrame) -> Opinion:
        """Compare the last windows of each series with its past."""
        count = frame.count
        values = np.empty((len(SIGNALS), len(count)))
        values[LATENCY] = np.where(count >= self._min_count, np.log1p(frame.p99_us / 1_000), np.nan)
        values[ERRORS] = np.where(count > 0, np.arcsin(np.sqrt(frame.errors / np.maximum(count, 1))), np.nan)
        values[-1] = np.log1p(count * (1_000 / self._span.length_ms))
        opinion = Opinion.none(len(count))
        opinion.warming[:] = self._neighbours[-1].warming
        step = frame.window_end_ms // self._span.slide_ms
        for signal, neighbours in enumerate(self._neighbours):
            opinion.score[signal] = neighbours.step(values[signal], step)
        return opinion

    def to_bytes(self) -> bytes:
        """Encode the past of all series."""
        return pack(_KIND, _VERSION, {"signals": [neighbours.to_bytes() for neighbours in self._neighbours]}, {})

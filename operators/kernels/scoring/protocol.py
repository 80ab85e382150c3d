"""What a detector for chosen series is: the protocol that those of ours and one's own have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from operators.kernels.frames import SIGNALS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.frames import WindowFrame

DEFAULT: Final = "default"
"""Name of the detector that watches every series unless told otherwise."""


@dataclass(frozen=True, slots=True)
class WindowSpan:
    """The windows that a detector will see.

    Attributes:
        length_ms: Milliseconds that a window is long.
        slide_ms: Milliseconds between window ends; divides the length.
    """

    length_ms: int
    slide_ms: int

    @property
    def overlap(self) -> int:
        """Windows that share data with a window, itself included."""
        return self.length_ms // self.slide_ms


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a detector says about the windows of one frame; n rows, those of the frame.

    Signals are in the order of `SIGNALS`, in the units of `ScoredFrame`: milliseconds of P99, error ratio, requests per
    second.

    Attributes:
        score: Shape (signals, n), not negative: 1 or more is anomalous. NaN where the detector has no opinion.
        expected: Shape (signals, n): what was expected; NaN where nothing was.
        lower: Shape (signals, n): below this value the score is 1 or more; NaN where there is no such edge.
        upper: Shape (signals, n): above it, likewise.
        warming: Shape (n,), bool: the detector has not seen enough to judge this series.
    """

    score: NDArray[np.float64]
    expected: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    warming: NDArray[np.bool_]

    @classmethod
    def none(cls, rows: int) -> Opinion:
        """Have no opinion on so many rows; the arrays may be filled in."""
        score, expected, lower, upper = (np.full((len(SIGNALS), rows), np.nan) for _ in range(4))
        return cls(score, expected, lower, upper, np.zeros(rows, bool))


class WindowDetector(Protocol):
    """Judges the windows of some series of one shard.

    It is made by a factory, `factory(span, state, **options)`: `span` is a `WindowSpan`, `state` the bytes of an
    earlier `to_bytes` or None for a start from nothing, `options` what the settings say, numbers and texts. The laws
    that it must keep are in `operators.kernels.scoring.laws`, as checks to be called from one's own tests.
    """

    def align(self, carry: NDArray[np.int64]) -> None:
        """Reorder, drop and add series.

        Args:
            carry: Shape (n,): for each row from now on the row that it had, -1 for a new series.
        """

    def step(self, frame: WindowFrame) -> Opinion:
        """Judge one window of each series by what was known before it, then learn it.

        Args:
            frame: Windows of the series that this detector watches, in the order of `align`; its `carry` is None.
        """

    def to_bytes(self) -> bytes:
        """Encode everything that later steps depend on, in a layout with a version."""

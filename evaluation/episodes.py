"""Alerts from scores: an episode opens at the first row over the threshold and takes in all that follow soon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUIET_ROWS: Final = 36
"""An episode takes in what comes within so many rows of its opening: three hours of NAB's usual data."""


def openings(score: NDArray[np.float64], threshold: float, *, quiet_rows: int = QUIET_ROWS) -> NDArray[np.bool_]:
    """Find the rows on which an episode opens.

    Args:
        score: Shape (n,).
        threshold: Rows with this score or more are anomalous.
        quiet_rows: Rows after an opening in which no other opens.

    Returns:
        Shape (n,), bool; a row depends on earlier rows only.
    """
    opens = np.zeros(len(score), bool)
    last = -quiet_rows - 1
    for row in np.flatnonzero(score >= threshold).tolist():
        if row - last > quiet_rows:
            opens[row] = True
            last = row
    return opens

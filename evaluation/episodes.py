"""Alerts from scores: an episode opens at the first row over the threshold and takes in all that follow soon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUIET_S: Final = 10_800.0
"""An episode that has opened takes in what comes within three hours: people are at it by then."""


def openings(
    time_s: NDArray[np.float64], score: NDArray[np.float64], threshold: float, *, quiet_s: float = QUIET_S
) -> NDArray[np.bool_]:
    """Find the rows on which an episode opens.

    Args:
        time_s: Shape (n,), increasing.
        score: Shape (n,).
        threshold: Rows with this score or more are anomalous.
        quiet_s: Seconds after an opening in which no other opens.

    Returns:
        Shape (n,), bool; a row depends on earlier rows only.
    """
    opens = np.zeros(len(score), bool)
    last_s = -np.inf
    for row in np.flatnonzero(score >= threshold):
        if time_s[row] - last_s > quiet_s:
            opens[row] = True
            last_s = time_s[row]
    return opens

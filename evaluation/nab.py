"""The score of the Numenta Anomaly Benchmark, from its specification.

Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms" (2015): within a labelled window the earliest
detection counts, worth more the earlier it is; every detection outside counts against the detector, the more the
farther it is behind a window; a missed window costs one miss. 0 is a detector that never detects, 100 a perfect one.
The first 15% of a file, and of no more than 5,000 rows, are for learning and are not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_STEEPNESS: Final = 5.0
_FAR_BEHIND: Final = 3.0
_LEARNING_RATIO: Final = 0.15
_LEARNING_ROWS_MAX: Final = 5_000


@dataclass(frozen=True, slots=True)
class Profile:
    """What a false detection and a missed window cost, in units of what a found one is worth."""

    name: str
    false_detection: float
    miss: float


PROFILES: Final = (
    Profile("standard", 0.11, 1.0),
    Profile("low false positives", 0.22, 1.0),
    Profile("low false negatives", 0.11, 2.0),
)


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a detection on each row of one file would be worth.

    Attributes:
        window: Shape (n,), int: index of the labelled window that a row is in; -1 outside.
        worth: Shape (n,): in a window the share of a full hit, outside minus the share of a full false detection; 0 in
            the rows for learning.
        windows: Number of windows.
    """

    window: NDArray[np.int64]
    worth: NDArray[np.float64]
    windows: int


def judge_rows(time_s: NDArray[np.float64], spans: Sequence[tuple[float, float]]) -> Sheet:
    """Lay out a file.

    Args:
        time_s: Shape (n,), increasing.
        spans: Labelled windows, first to last second inclusive, sorted and apart.
    """
    rows = np.arange(len(time_s))
    window = np.full(len(rows), -1)
    place = np.full(len(rows), _FAR_BEHIND)
    for index, (start_s, end_s) in enumerate(spans):
        first = int(np.searchsorted(time_s, start_s, side="left"))
        last = int(np.searchsorted(time_s, end_s, side="right")) - 1
        width = last - first + 1
        inside = slice(first, last + 1)
        window[inside] = index
        place[inside] = -(last - rows[inside] + 1) / max(width, 1)
        place[last + 1 :] = (rows[last + 1 :] - last) / max(width - 1, 1)
    worth = np.where(place >= _FAR_BEHIND, -1.0, 2 / (1 + np.exp(np.minimum(_STEEPNESS * place, 50))) - 1)
    full = 2 / (1 + np.exp(-_STEEPNESS)) - 1
    worth[window >= 0] /= full
    learning = int(min(_LEARNING_RATIO * len(rows), _LEARNING_RATIO * _LEARNING_ROWS_MAX))
    worth[:learning] = 0
    window[:learning] = -1
    return Sheet(window, worth, len(spans))


def raw_score(sheet: Sheet, detected: NDArray[np.bool_], profile: Profile) -> float:
    """Add up what the detections of one file are worth; a perfect detector gets the number of windows."""
    found = np.full(sheet.windows, -profile.miss)
    inside = detected & (sheet.window >= 0)
    np.maximum.at(found, sheet.window[inside], sheet.worth[inside])
    outside = detected & (sheet.window < 0)
    return float(found.sum() + profile.false_detection * sheet.worth[outside].sum())


def normalised(sheets: Sequence[Sheet], detected: Sequence[NDArray[np.bool_]], profile: Profile) -> float:
    """Score a detector over files: 0 for one that is silent, 100 for a perfect one.

    Returns:
        NaN when no file has a window.
    """
    windows = sum(sheet.windows for sheet in sheets)
    if not windows:
        return float("nan")
    total = sum(raw_score(sheet, rows, profile) for sheet, rows in zip(sheets, detected, strict=True))
    silent = -profile.miss * windows
    return 100 * (total - silent) / (windows - silent)

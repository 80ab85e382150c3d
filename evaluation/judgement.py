"""What alerts are worth to a person: events found, alerts that were right, delay, and the F1 of the AIOps challenge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from evaluation.episodes import openings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from evaluation.recordings import Recording

    Spans = Sequence[tuple[float, float]]

_DAY_S: Final = 86_400.0
_DELAY_ROWS: Final = 7
_BISECTIONS: Final = 30


@dataclass(frozen=True, slots=True)
class Labelled:
    """A recording, its scores and its labelled spans (seconds, first to last inclusive)."""

    recording: Recording
    score: NDArray[np.float64]
    spans: Spans

    @property
    def days(self) -> float:
        """Length of the recording."""
        return float(np.ptp(self.recording.time_s)) / _DAY_S


@dataclass(frozen=True, slots=True)
class Worth:
    """What the alerts at one threshold are worth.

    Attributes:
        threshold: Scores from here on are anomalous.
        alerts_per_day: Alerts a series a day.
        recall: Part of the labelled events during which an alert opened.
        precision: Part of the alerts that opened during an event.
        delay_s: Median seconds from the begin of a found event to its first alert; NaN without any.
    """

    threshold: float
    alerts_per_day: float
    recall: float
    precision: float
    delay_s: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What the alerts of one recording came to at one threshold.

    Attributes:
        alerts: How many opened.
        right: How many of them during an event.
        delays_s: For each event that was found, the seconds from its begin to its first alert.
    """

    alerts: int
    right: int
    delays_s: tuple[float, ...]


def count_at(one: Labelled, threshold: float) -> Counts:
    """Count the alerts that a threshold opens."""
    opened_s = one.recording.time_s[openings(one.score, threshold)]
    inside = np.zeros(len(opened_s), bool)
    delays = []
    for start_s, end_s in one.spans:
        during = (opened_s >= start_s) & (opened_s <= end_s)
        inside |= during
        if during.any():
            delays.append(float(opened_s[during][0] - start_s))
    return Counts(len(opened_s), int(inside.sum()), tuple(delays))


def worth_at(series: Sequence[Labelled], threshold: float) -> Worth:
    """Judge the alerts that a threshold opens."""
    return worth_of(series, [count_at(one, threshold) for one in series], threshold)


def worth_of(series: Sequence[Labelled], counts: Sequence[Counts], threshold: float) -> Worth:
    """Judge alerts that were counted at a threshold, series by series."""
    alerts, right = sum(one.alerts for one in counts), sum(one.right for one in counts)
    delays = [delay for one in counts for delay in one.delays_s]
    days, events = sum(one.days for one in series), sum(len(one.spans) for one in series)
    delay_s = float(np.median(delays)) if delays else float("nan")
    return Worth(threshold, alerts / max(days, 1e-9), len(delays) / max(events, 1), right / max(alerts, 1), delay_s)


def worth_at_budget(series: Sequence[Labelled], alerts_per_day: float) -> Worth:
    """Judge the alerts at the lowest threshold that opens no more than a number of them a series a day."""
    highest = max(float(one.score.max()) for one in series)
    low, high = 0.0, highest * 1.001 + 1e-9
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if worth_at(series, middle).alerts_per_day > alerts_per_day:
            low = middle
        else:
            high = middle
    return worth_at(series, high)


def delay_f1(series: Sequence[Labelled], threshold: float) -> float:
    """Compute the F1 of the AIOps challenge of 2018, over the rows of all series.

    Gaps are filled with rows that are neither labelled nor detected. All of a labelled run counts as detected when one
    row of it is, no later than seven rows after its begin; else all of it is missed. Rows outside count singly.
    """
    return f1_of(delay_rows(one, threshold) for one in series)


def delay_rows(one: Labelled, threshold: float) -> tuple[int, int, int]:
    """Count the rows of one recording that are found, wrong and missed, as `delay_f1` has them."""
    labelled, detected = _on_grid(one, one.score >= threshold)
    edges = np.diff(np.concatenate(([0], labelled.astype(np.int8), [0])))
    true_rows = missed_rows = 0
    for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        if detected[start : min(end, start + _DELAY_ROWS + 1)].any():
            true_rows += int(end - start)
        else:
            missed_rows += int(end - start)
    return true_rows, int((detected & ~labelled).sum()), missed_rows


def f1_of(rows: Iterable[tuple[int, int, int]]) -> float:
    """Compute the F1 of what `delay_rows` counted; NaN where nothing is labelled or detected."""
    true_rows, false_rows, missed_rows = np.sum(list(rows), axis=0)
    denominator = 2 * true_rows + false_rows + missed_rows
    return float(2 * true_rows / denominator) if denominator else float("nan")


def _on_grid(one: Labelled, detected: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    time_s = one.recording.time_s
    steps = np.diff(time_s)
    step_s = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    # Rows may go back in time, and a gap of years needs no more empty rows than one that a run can't reach across.
    apart_s = np.clip(steps, 0, 10 * _DELAY_ROWS * step_s)
    place = np.round(np.concatenate(([0], np.cumsum(apart_s))) / step_s).astype(np.int64)
    labelled_rows = np.zeros(len(time_s), bool)
    for start_s, end_s in one.spans:
        labelled_rows |= (time_s >= start_s) & (time_s <= end_s)
    labelled, found = np.zeros(place[-1] + 1, bool), np.zeros(place[-1] + 1, bool)
    np.logical_or.at(labelled, place, labelled_rows)
    np.logical_or.at(found, place, detected)
    return labelled, found

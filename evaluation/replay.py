"""Replays recordings through the detector of the flow, many series at once."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from operators.kernels.scoring import Detector, DetectorConfig, Neighbours, NeighboursConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from evaluation.recordings import Recording
    from operators.kernels.scoring import Verdicts

_DAY_S: Final = 86_400.0
_WEEK_S: Final = 7 * _DAY_S
_INTERVAL_ROWS: Final = 31
"""Rows that the interval is measured on: no more than the detector takes to warm up, so that no score looks ahead."""

_SMALLEST_SCALE: Final = 1e-9


class SeriesDetector(Protocol):
    """Something that scores whole recordings, each row from that row and earlier ones only."""

    def score(self, recordings: Sequence[Recording]) -> list[NDArray[np.float64]]:
        """Return a score for each row of each recording; 1 or more is anomalous."""


class Default:
    """The flow's detector in its general profile: one value, watched in both directions, on its own scale."""

    def __init__(
        self, config: DetectorConfig | None = None, *, watch: Callable[[Verdicts], None] | None = None
    ) -> None:
        """Take the shipped profile or another one.

        Args:
            config: The profile.
            watch: Told what the kernel says of each row.
        """
        self._config = config or DetectorConfig()
        self._watch = watch

    def score(self, recordings: Sequence[Recording]) -> list[NDArray[np.float64]]:
        """Score each recording; those with the same interval go through the kernel together."""
        groups: dict[float, list[int]] = {}
        for index, recording in enumerate(recordings):
            groups.setdefault(interval_s(recording), []).append(index)
        scores: list[NDArray[np.float64]] = [np.zeros(0)] * len(recordings)
        for interval, members in groups.items():
            for index, score in zip(members, self._together([recordings[i] for i in members], interval), strict=True):
                scores[index] = score
        return scores

    def _together(self, recordings: list[Recording], interval: float) -> list[NDArray[np.float64]]:
        config = replace(self._config, steps_per_day=max(round(_DAY_S / interval), 1))
        detector = Detector(config)
        detector.align(np.full(len(recordings), -1))
        rows = max(len(recording.value) for recording in recordings)
        values = np.full((rows, 1, len(recordings)), np.nan)
        phases, weeks = np.zeros((rows, len(recordings))), np.zeros((rows, len(recordings)))
        for column, recording in enumerate(recordings):
            values[: len(recording.value), 0, column] = recording.value
            phases[: len(recording.value), column] = recording.time_s % _DAY_S / _DAY_S
            weeks[: len(recording.value), column] = recording.time_s % _WEEK_S / _WEEK_S
        score = np.empty((rows, len(recordings)))
        for step in range(rows):
            verdicts = detector.step(
                values[step], widen=1.0, floor=_SMALLEST_SCALE, step=step, phase=phases[step], week=weeks[step]
            )
            score[step] = verdicts.score[0]
            if self._watch is not None:
                self._watch(verdicts)
        return [score[: len(recording.value), column] for column, recording in enumerate(recordings)]


class WithNeighbours:
    """The default beside the nearest-neighbour channel, on every series: whichever is more surprised."""

    def score(self, recordings: Sequence[Recording]) -> list[NDArray[np.float64]]:
        """Score each recording."""
        rows = max(len(recording.value) for recording in recordings)
        values = np.full((rows, len(recordings)), np.nan)
        for column, recording in enumerate(recordings):
            values[: len(recording.value), column] = recording.value
        neighbours = Neighbours(NeighboursConfig(), len(recordings))
        novelty = np.array([neighbours.step(row) for row in values])
        scores = Default().score(recordings)
        return [np.maximum(score, novelty[: len(score), column]) for column, score in enumerate(scores)]


class Random:
    """Scores that know nothing, to stand beside those that should: seeded by the name of the recording."""

    def score(self, recordings: Sequence[Recording]) -> list[NDArray[np.float64]]:
        """Draw a score for each row, uniform in [0, 1)."""
        return [
            np.random.default_rng(zlib.crc32(recording.name.encode())).random(len(recording.value))
            for recording in recordings
        ]


DETECTORS: Final[dict[str, type[SeriesDetector]]] = {"default": Default, "knn": WithNeighbours, "random": Random}
"""What `--detector` may name."""


def interval_s(recording: Recording) -> float:
    """Return the usual seconds between rows, from the first rows; 300 where there is only one."""
    steps = np.diff(recording.time_s[:_INTERVAL_ROWS])
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else 300.0

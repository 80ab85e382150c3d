"""The scorer of one shard: closed windows in, the same windows with scores, bands and verdicts out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from operators.kernels.codec import pack, unpack
from operators.kernels.frames import ANOMALOUS, NORMAL, WARMING, ScoredFrame
from operators.kernels.scoring.detector import Detector
from operators.kernels.scoring.explanation import Explanation, Judged, explain
from operators.kernels.scoring.panel import Panel, settle
from operators.kernels.scoring.protocol import DEFAULT, WindowSpan
from operators.kernels.scoring.signals import TRAFFIC, Banding, Measures, measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from operators.kernels.frames import WindowFrame
    from operators.kernels.scoring.config import ScoringConfig
    from operators.kernels.scoring.verdicts import Readings, Verdicts

_FIRST_TIME_ZONE: Final = "UTC"
"""The time zone of states that name none: there was no other."""

_KIND: Final = "scorer"
_VERSION: Final = 2
_DAY_MS: Final = 86_400_000
_WEEK_MS: Final = 7 * _DAY_MS


class _Step(NamedTuple):
    """What came of one step."""

    scored: ScoredFrame
    measures: Measures
    verdicts: Verdicts
    opinions: dict[str, NDArray[np.float64]]


class Scorer:
    """Scores the windows of all series of one shard.

    `step` takes the frames of a shard in order of their window ends. State follows the rows by `WindowFrame.carry`.
    """

    def __init__(self, config: ScoringConfig, slide_ms: int, length_ms: int) -> None:
        """Start without series.

        Args:
            config: What counts as anomalous.
            slide_ms: Milliseconds between window ends.
            length_ms: Milliseconds that a window is long.

        Raises:
            ValueError: The slide does not divide the length.
        """
        if slide_ms <= 0 or length_ms % slide_ms:
            msg = f"`slide_ms` must divide `length_ms`, or panes would straddle windows; got {slide_ms} and {length_ms}"
            raise ValueError(msg)
        self._config = config
        self._slide_ms = slide_ms
        self._length_ms = length_ms
        self._detector = Detector(config.detector(slide_ms=slide_ms, length_ms=length_ms))
        self._banding = Banding(config)
        self._panel = Panel(config.panel, WindowSpan(length_ms, slide_ms))
        self._gated = any(spec.gated for spec in config.panel.detectors)
        self._age: NDArray[np.int16] = np.zeros(0, np.int16)

    @property
    def series(self) -> int:
        """Number of series that state is held for."""
        return self._detector.series

    @property
    def nbytes(self) -> int:
        """Bytes of state in memory."""
        return self._detector.nbytes + self._age.nbytes

    def step(self, frame: WindowFrame) -> ScoredFrame:
        """Score the windows of one frame, then learn them.

        Args:
            frame: The shard's next frame; rows are those of the last one unless it has a `carry`.

        Returns:
            The frame with its verdicts, from what was known before it.

        Raises:
            ValueError: The frame has no `carry`, but other rows than the last one.
        """
        return self._step(frame, None).scored

    def step_explained(self, frame: WindowFrame, rows: Sequence[int]) -> tuple[ScoredFrame, list[Explanation]]:
        """Do what `step` does, and tell why.

        Args:
            frame: As for `step`.
            rows: Rows of the frame to explain.

        Returns:
            The frame with its verdicts, and the explanation of each of the rows.
        """
        readings: list[Readings] = []
        scored, measures, verdicts, opinions = self._step(frame, readings)
        gates = {row: self._banding.gates(measures, verdicts, row) for row in rows}
        judged = Judged(
            scored=scored,
            measures=measures,
            readings=readings[0],
            gates=gates,
            whole=np.isfinite(measures.watched[1 + TRAFFIC]),
            warming=verdicts.warming,
            surprise=self._config.surprise,
            opinions=opinions,
        )
        return scored, [explain(judged, row) for row in rows]

    def _step(self, frame: WindowFrame, readings: list[Readings] | None) -> _Step:
        self._align(frame)
        local_ms = self._config.local_time.local_ms(frame.window_end_ms)
        measures = measure(frame, self._config, self._length_ms)
        self._leave_out_partial_windows(measures.watched)
        verdicts = self._detector.step(
            measures.watched,
            widen=measures.widen,
            floor=measures.floor,
            credit=measures.credit,
            step=frame.window_end_ms // self._slide_ms,
            phase=local_ms % _DAY_MS / _DAY_MS,
            week=local_ms % _WEEK_MS / _WEEK_MS,
            reading=readings,
        )
        bands = self._banding.apply(measures, verdicts)
        warming, by_rule, opinions = verdicts.warming[TRAFFIC], None, {DEFAULT: bands.score}
        if not self._panel.empty:
            far = self._banding.far(measures, verdicts) if self._gated else None
            bands, warming, by_rule, opinions = settle(bands, warming, self._panel.step(frame), far)
        state = np.where(warming, np.int8(WARMING), np.int8(NORMAL))
        state[np.maximum.reduce(bands.score, axis=0) >= 1] = ANOMALOUS
        scored = ScoredFrame(frame, bands.score, bands.expected, bands.lower, bands.upper, state, by_rule)
        return _Step(scored, measures, verdicts, opinions)

    def to_bytes(self) -> bytes:
        """Encode the state of all series."""
        values = {
            "detector": self._detector.to_bytes(),
            "panel": self._panel.to_bytes(),
            "time_zone": self._config.local_time.name,
        }
        return pack(_KIND, _VERSION, values, {"age": self._age})

    @classmethod
    def from_bytes(cls, config: ScoringConfig, slide_ms: int, length_ms: int, data: bytes) -> Scorer:
        """Resume from what `to_bytes` wrote; what was learned of the day in another time zone is learned anew.

        Raises:
            StateError: The bytes are damaged, or of windows with another overlap.
        """
        scorer = cls(config, slide_ms, length_ms)
        version, values, arrays = unpack(_KIND, (1, _VERSION), data)
        scorer._detector = Detector.from_bytes(scorer._detector.config, values["detector"])
        scorer._age = arrays["age"]
        if values.get("time_zone", _FIRST_TIME_ZONE) != config.local_time.name:
            scorer._detector.forget_seasons()
        if version > 1:
            scorer._panel = Panel.from_bytes(config.panel, WindowSpan(length_ms, slide_ms), values["panel"])
        return scorer

    def _align(self, frame: WindowFrame) -> None:
        if frame.carry is not None:
            self._detector.align(frame.carry)
            self._age = np.append(self._age, np.int16(0)).take(frame.carry)
        elif len(frame.count) != self.series:
            msg = (
                f"a frame without `carry` must have the {self.series} rows of the last, or state would change owners; "
                f"got {len(frame.count)}"
            )
            raise ValueError(msg)

    def _leave_out_partial_windows(self, watched: NDArray[np.float64]) -> None:
        """Hide the first windows of a series: they reach back to before it existed and hold a part of their traffic."""
        young = self._age < self._length_ms // self._slide_ms - 1
        if np.count_nonzero(young):
            watched[:, young] = np.nan
            self._age[young] += 1

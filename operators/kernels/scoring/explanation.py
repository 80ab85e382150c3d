"""Why a window has the score it has: what every channel read, which gates it passed, and in what words to say it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from operators.kernels.frames import SIGNALS, STATES
from operators.kernels.scoring.detector import CHANNELS
from operators.kernels.scoring.signals import TRAFFIC

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from operators.kernels.frames import ScoredFrame
    from operators.kernels.scoring.signals import Gate, Measures
    from operators.kernels.scoring.verdicts import Readings

UP: Final = "up"
DOWN: Final = "down"

_MEANING: Final = {
    "residual": "from the expected level",
    "jump": "from the windows just before",
    "record": "beyond the largest value so far",
}


@dataclass(frozen=True, slots=True)
class ChannelReading:
    """What one channel of the default detector read.

    Attributes:
        channel: `residual`, `jump` or `record`; those of P90, which supports P99, begin with `p90 `.
        direction: `up` or `down`.
        distance: How far the value is from where the channel expects it, in units of the series' own scale.
        surprise: -log10 of the probability of this distance by the history of the series, after the credit that the
            P99 of few requests is given.
        threshold: The surprise at which the score is 1.
    """

    channel: str
    direction: str
    distance: float
    surprise: float
    threshold: float

    @property
    def p(self) -> float:
        """The tail probability, at most 1."""
        return float(10 ** -max(self.surprise, 0.0))

    @property
    def text(self) -> str:
        """The reading in words."""
        meaning = _MEANING[self.channel.removeprefix("p90 ")]
        return (
            f"{self.channel} {self.direction}: {self.distance:.1f} times its scale {meaning}, "
            f"-log10 p {self.surprise:.2f} of {self.threshold:g}"
        )


@dataclass(frozen=True, slots=True)
class SignalExplanation:
    """Why one signal of one window has its score.

    Attributes:
        signal: One of `SIGNALS`.
        value: What was measured: P99 in milliseconds, error ratio, or requests per second; None when unknown.
        expected: What was expected, in the same unit; None while nothing is known.
        lower: Bottom of the band; None where low values are never anomalous or while warming.
        upper: Top of the band, likewise.
        score: 1 or more is anomalous.
        known_windows: Windows with a value that the detector has learned from.
        away_windows: For how many windows the value has been away from its level; it is absorbed after
            `ScoringConfig.absorb_windows`.
        warming: Whether there were too few known windows to judge this one.
        channels: What each channel read; empty when the value is unknown.
        gates: How far from its expectation the value must be, whatever its probability; empty likewise.
        detectors: Score of each detector that watches this series, by name; the largest is the score.
    """

    signal: str
    value: float | None
    expected: float | None
    lower: float | None
    upper: float | None
    score: float
    known_windows: int
    away_windows: int
    warming: bool
    channels: tuple[ChannelReading, ...] = ()
    gates: tuple[Gate, ...] = ()
    detectors: dict[str, float] = field(default_factory=dict)

    @property
    def strongest(self) -> ChannelReading | None:
        """The most surprised channel, None when the value is unknown."""
        return max(self.channels, key=lambda reading: reading.surprise, default=None)

    @property
    def verdict(self) -> str:
        """One sentence: why this signal is anomalous, or why it is not."""
        subject = "error ratio" if self.signal == "errors" else self.signal
        if self.value is None:
            return f"{subject} is unknown in this window: too few requests"
        if self.warming:
            return f"{subject} is warming: {self.known_windows} known windows so far"
        if self.score >= 1:
            by = [name for name, score in self.detectors.items() if score >= 1 and name != "default"]
            if by and self.detectors.get("default", 0.0) < 1:
                return f"{subject} is anomalous by {', '.join(by)}"
            told = self.strongest
            return f"{subject} is anomalous: outside its band" + (f" ({told.text})" if told else "")
        if told := next((one for one in self.channels if one.surprise >= one.threshold), None):
            short = [gate for gate in self.gates if gate.direction == told.direction and not gate.passed]
            return f"{subject} is improbable ({told.text}) but held back by {', '.join(gate.name for gate in short)}"
        return f"{subject} is normal: inside its band"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one window of one series was judged as it was.

    Attributes:
        service: Service.
        endpoint: Endpoint.
        window_start_ms: Begin of the window, event time.
        window_end_ms: End of the window, exclusive.
        state: One of `STATES`.
        requests: Requests in the window.
        errors: Those that failed.
        p90_ms: P90 in milliseconds, which has to support the P99 of few requests; None when unknown.
        credit: What part of its own surprise the P99 of so few requests keeps.
        whole: Whether the window lies wholly within the life of the series; one that does not is not judged.
        signals: One explanation for each of `SIGNALS`.
    """

    service: str
    endpoint: str
    window_start_ms: int
    window_end_ms: int
    state: str
    requests: int
    errors: int
    p90_ms: float | None
    credit: float
    whole: bool
    signals: tuple[SignalExplanation, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """One step of a scorer with everything that led to it.

    Attributes:
        scored: The frame with its verdicts.
        measures: The signals.
        readings: What the channels read.
        gates: Gates of a row, by its number.
        whole: Shape (n,): windows that lie wholly within the life of their series.
        warming: Shape (signals, n): signals that the default detector does not know well enough.
        surprise: -log10 of the probability at which the score is 1.
        opinions: By detector, scores of shape (signals, n); NaN where it does not watch.
    """

    scored: ScoredFrame
    measures: Measures
    readings: Readings
    gates: dict[int, tuple[tuple[Gate, ...], ...]]
    whole: NDArray[np.bool_]
    warming: NDArray[np.bool_]
    surprise: float
    opinions: dict[str, NDArray[np.float64]]


def explain(judged: Judged, row: int) -> Explanation:
    """Explain one row of a step.

    Args:
        judged: The step.
        row: Row of the series; its gates must be there.
    """
    windows = judged.scored.windows
    return Explanation(
        service=windows.service[row],
        endpoint=windows.endpoint[row],
        window_start_ms=windows.window_start_ms,
        window_end_ms=windows.window_end_ms,
        state=STATES[int(judged.scored.state[row])],
        requests=int(windows.count[row]),
        errors=int(windows.errors[row]),
        p90_ms=_or_none(float(windows.p90_us[row]) / 1_000),
        credit=float(judged.measures.credit[0, row]),
        whole=bool(judged.whole[row]),
        signals=tuple(_signal(judged, number, row) for number in range(len(SIGNALS))),
    )


def _signal(judged: Judged, number: int, row: int) -> SignalExplanation:
    scored, readings = judged.scored, judged.readings
    known = math.isfinite(judged.measures.watched[1 + number, row])
    return SignalExplanation(
        signal=SIGNALS[number],
        value=_or_none(float(judged.measures.natural[number, row])),
        expected=_or_none(float(scored.expected[number, row])),
        lower=_or_none(float(scored.lower[number, row])),
        upper=_or_none(float(scored.upper[number, row])),
        score=float(scored.score[number, row]),
        known_windows=int(readings.seen[1 + number, row]),
        away_windows=int(readings.away[1 + number, row]),
        warming=bool(judged.warming[number, row]),
        channels=_channels(judged, number, row) if known else (),
        gates=judged.gates[row][number] if known else (),
        detectors={
            name: float(scores[number, row])
            for name, scores in judged.opinions.items()
            if not math.isnan(scores[number, row])
        },
    )


def _channels(judged: Judged, number: int, row: int) -> tuple[ChannelReading, ...]:
    """List the readings of a signal: upwards, of what supports it, downwards."""
    signals = 1 + len(SIGNALS)
    places = [("", UP, 1 + number, 1.0)]
    if number == 0:
        credit = float(judged.measures.credit[0, row])
        places = [("", UP, 1, credit), ("p90 ", UP, 0, 1.0)]
    if number == TRAFFIC:
        places.append(("", DOWN, signals, 1.0))
    return tuple(
        ChannelReading(
            channel=prefix + name,
            direction=direction,
            distance=float(judged.readings.distance[channel, place, row]),
            surprise=float(judged.readings.surprise[channel, place, row]) * credit,
            threshold=judged.surprise,
        )
        for prefix, direction, place, credit in places
        for channel, name in enumerate(CHANNELS)
    )


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None

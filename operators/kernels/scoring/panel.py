"""Which detectors watch which series, beside the default one or in its place."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.kernels.codec import pack, unpack
from operators.kernels.frames import WindowFrame
from operators.kernels.scoring.protocol import DEFAULT
from operators.kernels.scoring.signals import JUST_BELOW_ONE, Bands

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from operators.kernels.scoring.protocol import Opinion, WindowDetector, WindowSpan

_KIND: Final = "panel"
_VERSION: Final = 1

_MOST_REMEMBERED: Final = 10_000
_WILD: Final = "*?["
_COLUMNS: Final = ("count", "errors", "sum_us", "max_us", "p50_us", "p90_us", "p99_us")


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """A detector that series may be given.

    Attributes:
        name: What the settings call it.
        build: Makes one for a shard: `build(span, state)`.
        tag: Everything that the meaning of its state depends on, as text; state under another tag is begun anew.
        gated: Whether its anomalies count only behind the gates of the default detector.
    """

    name: str
    build: Callable[[WindowSpan, bytes | None], WindowDetector]
    tag: str
    gated: bool = False


@dataclass(frozen=True, slots=True)
class PanelConfig:
    """Detectors by name, and who is watched by which.

    Attributes:
        detectors: What there is beside the default.
        choices: Pattern of `service|endpoint`, with `*`, `?` and `[…]`, and the names of the detectors of the series
            that match. Of several patterns the most specific one decides, that is the one with the most characters
            that stand for themselves; a series that no pattern matches has the default.
    """

    detectors: tuple[DetectorSpec, ...] = ()
    choices: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        """Check that every name that is chosen exists.

        Raises:
            ValueError: One does not, or a pattern chooses none.
        """
        known = {DEFAULT, *(spec.name for spec in self.detectors)}
        for pattern, names in self.choices:
            if not names or not set(names) <= known:
                msg = (
                    f"`series` must give {pattern!r} one or more of {', '.join(sorted(known))}, or nothing would watch "
                    f"it; got {', '.join(names) or 'none'}"
                )
                raise ValueError(msg)

    def names_for(self, service: str, endpoint: str) -> tuple[str, ...]:
        """Name the detectors of a series."""
        series = f"{service}|{endpoint}"
        matching = [choice for choice in self.choices if fnmatch.fnmatchcase(series, choice[0])]
        return max(matching, key=_specificity)[1] if matching else (DEFAULT,)


@dataclass(slots=True)
class _Seat:
    """A detector, and the rows of the present frame that it watches, rising."""

    spec: DetectorSpec
    detector: WindowDetector
    rows: NDArray[np.int64]


@dataclass(slots=True)
class Said:
    """What the detectors beside the default say about one frame.

    Attributes:
        opinions: Detector, rows that it watches, and its opinion on them.
        by_default: Shape (n,), bool: rows that the default detector watches.
    """

    opinions: list[tuple[DetectorSpec, NDArray[np.int64], Opinion]]
    by_default: NDArray[np.bool_]


class Panel:
    """The detectors of one shard beside the default."""

    def __init__(self, config: PanelConfig, span: WindowSpan) -> None:
        """Start with detectors that know nothing."""
        self._config = config
        self._span = span
        self._seats = [_Seat(spec, spec.build(span, None), np.zeros(0, np.int64)) for spec in config.detectors]
        self._placed = False
        self._by_default = np.zeros(0, bool)
        self._names: dict[tuple[str, str], tuple[str, ...]] = {}

    @property
    def empty(self) -> bool:
        """Whether every series is watched by the default detector and by nothing else."""
        return not self._config.choices

    def step(self, frame: WindowFrame) -> Said:
        """Let every detector judge the rows that it watches."""
        if frame.carry is not None or not self._placed:
            self._place(frame)
        opinions = [
            (seat.spec, seat.rows, seat.detector.step(_part(frame, seat.rows)))
            for seat in self._seats
            if len(seat.rows)
        ]
        return Said(opinions, self._by_default)

    def to_bytes(self) -> bytes:
        """Encode the states of the detectors, and which rows they watch."""
        states = [(seat.spec.name, seat.spec.tag, seat.detector.to_bytes()) for seat in self._seats]
        return pack(_KIND, _VERSION, {"states": states}, {f"rows.{seat.spec.name}": seat.rows for seat in self._seats})

    @classmethod
    def from_bytes(cls, config: PanelConfig, span: WindowSpan, data: bytes) -> Panel:
        """Resume from what `to_bytes` wrote; detectors that are new or were changed begin anew.

        Raises:
            StateError: The bytes are of something else, or a detector can't read its state.
        """
        _, values, arrays = unpack(_KIND, (_VERSION,), data)
        panel = cls(config, span)
        states = {(name, tag): state for name, tag, state in values["states"]}
        for seat in panel._seats:
            state = states.get((seat.spec.name, seat.spec.tag))
            if state is not None:
                seat.detector, seat.rows = seat.spec.build(span, state), arrays[f"rows.{seat.spec.name}"]
        return panel

    def _place(self, frame: WindowFrame) -> None:
        """Find the rows of each detector, and let its state follow them."""
        names = [self._names_for(series) for series in zip(frame.service, frame.endpoint, strict=True)]
        before = np.arange(len(names)) if frame.carry is None else frame.carry
        for seat in self._seats:
            rows = np.flatnonzero([seat.spec.name in chosen for chosen in names]).astype(np.int64)
            former = np.full(int(max(before.max(initial=-1), seat.rows.max(initial=-1))) + 2, -1)
            former[seat.rows] = np.arange(len(seat.rows))
            seat.detector.align(former[before[rows]])
            seat.rows = rows
        self._by_default = np.array([DEFAULT in chosen for chosen in names], bool)
        self._placed = True

    def _names_for(self, series: tuple[str, str]) -> tuple[str, ...]:
        found = self._names.get(series)
        if found is None:
            if len(self._names) >= _MOST_REMEMBERED:
                self._names.clear()
            found = self._names[series] = self._config.names_for(*series)
        return found


def settle(
    bands: Bands, warming: NDArray[np.bool_], said: Said, far: NDArray[np.bool_] | None
) -> tuple[Bands, NDArray[np.bool_], NDArray[np.bool_], dict[str, NDArray[np.float64]]]:
    """Settle what all detectors say: the largest score, the narrowest band.

    Args:
        bands: What the default detector says.
        warming: Shape (n,): series that it does not know well enough.
        said: What the others say.
        far: Shape (signals, n): values that passed the gates of the default detector; None when nobody asks.

    Returns:
        The bands; shape (n,), series that no detector of theirs knows well enough; shape (signals, n), anomalies that
        others than the default find; and the scores of each detector, NaN where it does not watch.
    """
    watched = said.by_default
    score = np.where(watched, bands.score, 0.0)
    expected, lower, upper = (np.where(watched, band, np.nan) for band in (bands.expected, bands.lower, bands.upper))
    warming = warming | ~watched
    by_rule = np.zeros(score.shape, bool)
    told = {DEFAULT: np.where(watched, bands.score, np.nan)}
    for spec, rows, opinion in said.opinions:
        found = opinion.score.copy()
        if spec.gated and far is not None:
            found = np.where(far[:, rows], found, np.minimum(found, JUST_BELOW_ONE))
        told[spec.name] = np.full(score.shape, np.nan)
        told[spec.name][:, rows] = found
        score[:, rows] = np.fmax(score[:, rows], found)
        lower[:, rows] = np.fmax(lower[:, rows], opinion.lower)
        upper[:, rows] = np.fmin(upper[:, rows], opinion.upper)
        known = expected[:, rows]
        expected[:, rows] = np.where(np.isnan(known), opinion.expected, known)
        by_rule[:, rows] |= found >= 1
        warming[rows] &= opinion.warming
    return Bands(score, expected, lower, upper), warming, by_rule, told


def _specificity(choice: tuple[str, Any]) -> tuple[int, str]:
    pattern = choice[0]
    return sum(character not in _WILD for character in pattern), pattern


def _part(frame: WindowFrame, rows: NDArray[np.int64]) -> WindowFrame:
    """Cut some rows out of a frame."""
    arrays = {name: getattr(frame, name)[rows] for name in _COLUMNS}
    places = rows.tolist()
    return WindowFrame(
        window_start_ms=frame.window_start_ms,
        window_end_ms=frame.window_end_ms,
        service=[frame.service[row] for row in places],
        endpoint=[frame.endpoint[row] for row in places],
        carry=None,
        cut_short=frame.cut_short,
        **arrays,
    )

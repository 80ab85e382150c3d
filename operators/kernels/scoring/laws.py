"""The laws that every detector for chosen series keeps, as checks to call from one's own tests.

    from operators.kernels.scoring.laws import CHECKS

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_detector_keeps_the_laws(check):
        check(MyDetector, memory=24)

A detector that breaks one breaks a promise of the flow: that results depend on the log and the configuration alone,
that a job may be stopped anywhere, that memory stays bounded. Each check raises an AssertionError that says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from operators.kernels.codec import StateError, pack
from operators.kernels.frames import SIGNALS, WindowFrame
from operators.kernels.scoring.protocol import WindowSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from operators.kernels.scoring.protocol import Opinion, WindowDetector

SPAN: Final = WindowSpan(length_ms=60_000, slide_ms=10_000)
_START_MS: Final = 1_760_000_000_000
_SERIES: Final = 4
_WINDOWS: Final = 120
_SETTLED: Final = 400
_GROWTH: Final = 1.1
_FIELDS: Final = ("score", "expected", "lower", "upper", "warming")
_COLUMNS: Final = ("count", "errors", "sum_us", "max_us", "p50_us", "p90_us", "p99_us")


class Factory(Protocol):
    """Makes a detector, from nothing or from the bytes of an earlier one."""

    def __call__(self, span: WindowSpan, state: bytes | None, **options: Any) -> WindowDetector:  # noqa: ANN401
        """Make one."""


def check_opinions_have_their_shape_and_no_infinities(factory: Factory, **options: object) -> None:
    """Scores are not negative, everything is finite or NaN, and of the shape of the frame."""
    for rows in (0, 1, _SERIES):
        detector = _started(factory, options, rows)
        for frame in [*_world(60, rows), *_extremes(60, rows)]:
            opinion = detector.step(frame)
            for name in _FIELDS[:-1]:
                values = getattr(opinion, name)
                assert values.shape == (len(SIGNALS), rows), f"`{name}` must have the shape {(len(SIGNALS), rows)}"
                assert not np.isinf(values).any(), f"`{name}` must be finite, or NaN where there is nothing to say"
            assert opinion.warming.shape == (rows,), "`warming` must say something about every series"
            assert opinion.warming.dtype == bool, "`warming` must be of booleans"
            assert not (opinion.score < 0).any(), "a score must not be negative"


def check_value_outside_its_band_is_anomalous(factory: Factory, **options: object) -> None:
    """Where there is an edge, a value beyond it has a score of 1 or more: what is drawn is what decides."""
    detector = _started(factory, options, _SERIES)
    for frame in _world(_WINDOWS, _SERIES):
        opinion = detector.step(frame)
        values = np.stack((frame.p99_us / 1_000, frame.errors / np.maximum(frame.count, 1), frame.count / 60))
        outside = ((values > opinion.upper) | (values < opinion.lower)) & ~np.isnan(opinion.score)
        unknown = np.zeros_like(outside)
        unknown[:-1] = frame.count < _FEW
        assert (opinion.score[outside & ~unknown] >= 1).all(), "a value outside its band must have a score of 1 or more"


def check_verdict_does_not_depend_on_what_comes_later(factory: Factory, **options: object) -> None:
    """The same beginning has the same verdicts, whatever follows."""
    frames = _world(_WINDOWS, _SERIES)
    half = len(frames) // 2
    straight = _run(_started(factory, options, _SERIES), frames)
    changed = _run(_started(factory, options, _SERIES), [*frames[:half], *_extremes(half, _SERIES)])
    _assert_same(straight[:half], changed[:half], "a verdict must not depend on later windows")


def check_series_are_judged_by_themselves(factory: Factory, **options: object) -> None:
    """A series has the same verdicts alone, beside others, and in any order."""
    frames = _world(_WINDOWS, _SERIES)
    together = _run(_started(factory, options, _SERIES), frames)
    for rows in ([2], [3, 0], [1, 3, 2, 0]):
        alone = _run(_started(factory, options, len(rows)), [_rows(frame, rows) for frame in frames])
        _assert_same(together, alone, "a series must not depend on its neighbours", rows)


def check_state_follows_its_series(factory: Factory, **options: object) -> None:
    """After `align`, series go on where they stood, and new ones start from nothing."""
    frames = _world(_WINDOWS, _SERIES)
    half, rows = len(frames) // 2, [3, 1]
    straight = _run(_started(factory, options, _SERIES), frames)
    moved = _started(factory, options, _SERIES)
    _run(moved, frames[:half])
    moved.align(np.array([3, -1, 1]))
    later = [_rows(frame, [3, 0, 1]) for frame in frames[half:]]
    after = _run(moved, later)
    _assert_same(straight[half:], [_taken(one, [0, 2]) for one in after], "state must follow its series", rows)
    fresh = _run(_started(factory, options, 1), [_rows(frame, [0]) for frame in frames[half:]])
    _assert_same(fresh, [_taken(one, [1]) for one in after], "a new series must start from nothing")


def check_resumed_detector_goes_on_as_if_it_had_not_stopped(factory: Factory, **options: object) -> None:
    """What `to_bytes` gives is all there is to know."""
    frames = _world(_WINDOWS, _SERIES)
    straight = _run(_started(factory, options, _SERIES), frames)
    for stop in (0, 1, 7, 50, len(frames) - 1):
        first = _started(factory, options, _SERIES)
        before = _run(first, frames[:stop])
        state = first.to_bytes()
        assert isinstance(state, bytes), "`to_bytes` must give bytes"
        assert state == first.to_bytes(), "`to_bytes` must change nothing, and give the same bytes for the same state"
        resumed = factory(SPAN, state, **options)
        _assert_same(straight, before + _run(resumed, frames[stop:]), "a resumed detector must go on where it stood")


def check_frames_are_left_as_they_are(factory: Factory, **options: object) -> None:
    """A frame belongs to everybody who reads it."""
    detector = _started(factory, options, _SERIES)
    for frame in _world(20, _SERIES):
        before = {name: getattr(frame, name).copy() for name in _COLUMNS}
        detector.step(frame)
        for name, values in before.items():
            assert np.array_equal(values, getattr(frame, name), equal_nan=True), f"`{name}` of a frame must stay"


def check_state_is_bounded(factory: Factory, **options: object) -> None:
    """State stops growing: it is of bounded size for each series, and is freed with it."""
    sizes = []
    detector = _started(factory, options, _SERIES)
    frames = _world(3 * _SETTLED, _SERIES)
    for number, frame in enumerate(frames):
        detector.step(frame)
        if number + 1 in (_SETTLED, 3 * _SETTLED):
            sizes.append(len(detector.to_bytes()))
    assert sizes[1] <= _LARGEST_STATE_BYTES, f"state must be bounded; it has {sizes[1]} bytes for {_SERIES} series"
    detector.align(np.zeros(0, np.int64))
    left = len(detector.to_bytes())
    assert left <= max(_GROWTH * len(_started(factory, options, 0).to_bytes()), _EMPTY_STATE_BYTES), (
        f"state of series that are gone must be freed; {left} bytes are left"
    )


def check_state_of_something_else_is_refused(factory: Factory, **options: object) -> None:
    """Bytes that are no state of this detector raise a `StateError`, and are not guessed at."""
    good = _started(factory, options, 1).to_bytes()
    for bad in (b"", b"{}", good[: len(good) // 2], pack("something else", 1, {}, {})):
        try:
            factory(SPAN, bad, **options)
        except StateError:
            continue
        raise AssertionError("bytes of something else must raise a StateError, or a state would be guessed at")


CHECKS: Final[tuple[Callable[..., None], ...]] = (
    check_opinions_have_their_shape_and_no_infinities,
    check_value_outside_its_band_is_anomalous,
    check_verdict_does_not_depend_on_what_comes_later,
    check_series_are_judged_by_themselves,
    check_state_follows_its_series,
    check_resumed_detector_goes_on_as_if_it_had_not_stopped,
    check_frames_are_left_as_they_are,
    check_state_is_bounded,
    check_state_of_something_else_is_refused,
)
"""All laws."""

_FEW: Final = 200
"""Requests below which a detector may take latencies and ratios for unknown."""

_LARGEST_STATE_BYTES: Final = 4 << 20
_EMPTY_STATE_BYTES: Final = 4_096


def _started(factory: Factory, options: dict[str, Any], rows: int) -> WindowDetector:
    detector = factory(SPAN, None, **options)
    detector.align(np.full(rows, -1))
    return detector


def _run(detector: WindowDetector, frames: Sequence[WindowFrame]) -> list[Opinion]:
    return [detector.step(frame) for frame in frames]


def _assert_same(
    left: Sequence[Opinion], right: Sequence[Opinion], law: str, rows: Sequence[int] | None = None
) -> None:
    for number, (one, other) in enumerate(zip(left, right, strict=True)):
        for name in _FIELDS:
            whole = getattr(one, name)
            part = whole if rows is None else whole[..., list(rows)]
            same = np.array_equal(part, getattr(other, name), equal_nan=name != "warming")
            assert same, f"{law}; `{name}` of window {number} differs"


def _taken(opinion: Opinion, rows: Sequence[int]) -> Opinion:
    score, expected, lower, upper, warming = (getattr(opinion, name)[..., list(rows)] for name in _FIELDS)
    return type(opinion)(score, expected, lower, upper, warming)


def _rows(frame: WindowFrame, rows: Sequence[int]) -> WindowFrame:
    return _frame(frame.window_end_ms, *(getattr(frame, name)[list(rows)] for name in _COLUMNS))


def _frame(end_ms: int, *columns: NDArray[Any]) -> WindowFrame:
    rows = len(columns[0])
    names = [f"service-{row}" for row in range(rows)]
    arrays = dict(zip(_COLUMNS, columns, strict=True))
    return WindowFrame(end_ms - SPAN.length_ms, end_ms, names, [""] * rows, carry=None, cut_short=False, **arrays)


def _world(windows: int, rows: int) -> list[WindowFrame]:
    """Windows of services with an incident each, and pauses; seeded, and each series drawn by itself."""
    columns: list[list[NDArray[Any]]] = [[] for _ in range(rows)]
    for row in range(rows):
        random = np.random.default_rng(row)
        usual = 300 * (row + 1)
        count = random.poisson(usual, windows)
        count[(np.arange(windows) + 9 * row) % 50 > 46] = 0  # noqa: PLR2004 - three pauses in fifty windows
        trouble = (np.arange(windows) + 13 * row) % 60 > 48  # noqa: PLR2004 - eleven bad windows in sixty
        errors = random.binomial(count, np.where(trouble, 0.3, 0.002))
        p99_us = 80_000 * np.exp(random.normal(0, 0.1, windows)) * np.where(trouble, 8, 1)
        p99_us[count == 0] = np.nan
        columns[row] = [count, errors, count * 50_000, np.nan_to_num(p99_us * 2).astype(np.int64)]
        columns[row] += [p99_us / 4, p99_us / 2, p99_us]
    frames = []
    for window in range(windows):
        values = [np.array([columns[row][column][window] for row in range(rows)]) for column in range(len(_COLUMNS))]
        whole = [value.astype(np.int64) for value in values[:4]]
        frames.append(_frame(_end_ms(window), *whole, *(value.astype(np.float64) for value in values[4:])))
    return frames


def _extremes(windows: int, rows: int) -> list[WindowFrame]:
    """Windows that hold nothing, and windows that hold far too much, behind a gap in time."""
    frames = []
    for window in range(windows):
        count = np.full(rows, 0 if window % 3 else 2**40)
        p99_us = np.where(count > 0, 1e15, np.nan)
        whole = (count, count, count, count)
        frames.append(_frame(_end_ms(10 * _WINDOWS + window), *whole, p99_us, p99_us, p99_us))
    return frames


def _end_ms(window: int) -> int:
    return _START_MS + (window + 1) * SPAN.slide_ms

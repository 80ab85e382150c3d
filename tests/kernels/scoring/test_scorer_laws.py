"""Laws of every scorer: it is a function of each series' own history, however rows are cut, ordered and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from operators.kernels.scoring import Detector, DetectorConfig, Scorer, ScoringConfig
from tests.kernels.scoring.window_world import LENGTH_MS, SLIDE_MS, START_MS, Incident, make_frame, make_world, rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.frames import ScoredFrame, WindowFrame

    Rows = slice | NDArray[np.int64]

FIELDS = ("score", "expected", "lower", "upper", "state")
EVERY = slice(None)
INCIDENTS = tuple(Incident(s, 40 + 2 * s, 70, latency=1.0 + s, errors=0.05 * s, traffic=0.2 * s) for s in range(5))


@pytest.fixture(scope="module")
def frames() -> list[WindowFrame]:
    return make_world([0.3, 1.0, 4.0, 12.0, 40.0], 110, INCIDENTS)


def run(scorer: Scorer, frames: list[WindowFrame]) -> list[ScoredFrame]:
    return [scorer.step(frame) for frame in frames]


def new_scorer() -> Scorer:
    return Scorer(ScoringConfig(), SLIDE_MS, LENGTH_MS)


def assert_same(left: list[ScoredFrame], right: list[ScoredFrame], rows: Rows = EVERY) -> None:
    for a, b in zip(left, right, strict=True):
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(a, name)[..., rows], getattr(b, name), err_msg=name)


@settings(max_examples=6)
@given(rows=st.lists(st.sampled_from(range(5)), min_size=1, max_size=4, unique=True))
def test_series_score_the_same_alone_and_together_in_any_order(frames: list[WindowFrame], rows: list[int]) -> None:
    chosen = np.array(rows)
    alone = [rows_of(f, chosen, None if f.carry is None else f.carry[chosen]) for f in frames]
    assert_same(run(new_scorer(), frames), run(new_scorer(), alone), chosen)


@settings(max_examples=6)
@given(stop=st.integers(0, 110))
def test_resumed_scorer_goes_on_as_if_it_had_not_stopped(frames: list[WindowFrame], stop: int) -> None:
    first = new_scorer()
    before = run(first, frames[:stop])
    resumed = Scorer.from_bytes(ScoringConfig(), SLIDE_MS, LENGTH_MS, first.to_bytes())
    assert_same(run(new_scorer(), frames), before + run(resumed, frames[stop:]))


@settings(max_examples=5)
@given(stop=st.integers(1, 109))
def test_verdict_does_not_depend_on_what_comes_later(frames: list[WindowFrame], stop: int) -> None:
    changed = [make_frame(f.window_end_ms, f.count * 5, f.count, f.p99_us * 9, None) for f in frames[stop:]]
    assert_same(run(new_scorer(), frames)[:stop], run(new_scorer(), frames[:stop] + changed)[:stop])


@settings(max_examples=6)
@given(order=st.permutations(range(5)), at=st.integers(1, 100), left=st.integers(1, 5))
def test_state_follows_its_series_through_carry(
    frames: list[WindowFrame], order: list[int], at: int, left: int
) -> None:
    """Rows change places and some series leave: those that stay score as before."""
    kept = np.array(order[:left])
    moved = [rows_of(f, kept, kept if i == 0 else None) for i, f in enumerate(frames[at:])]
    straight = run(new_scorer(), frames)
    scorer = new_scorer()
    run(scorer, frames[:at])
    assert_same(straight[at:], run(scorer, moved), kept)


def test_new_series_beside_old_ones_starts_from_nothing(frames: list[WindowFrame]) -> None:
    later = 30
    fresh = [rows_of(f, np.array([2]), np.array([-1]) if i == 0 else None) for i, f in enumerate(frames[later:])]
    joined = [rows_of(f, np.array([0, 1]), f.carry if f.carry is None else f.carry[:2]) for f in frames[:later]]
    joined += [
        rows_of(f, np.array([0, 2, 1]), np.array([0, -1, 1]) if i == 0 else None) for i, f in enumerate(frames[later:])
    ]
    together = run(new_scorer(), joined)[later:]
    assert_same(together, run(new_scorer(), fresh), np.array([1]))


HUGE = st.one_of(st.integers(0, 2**62), st.integers(0, 50))


@settings(max_examples=30)
@given(
    start=st.lists(st.tuples(HUGE, HUGE, st.floats(0, 1e15)), min_size=0, max_size=12),
    extreme=st.lists(st.tuples(HUGE, HUGE, st.floats(0, 1e15)), min_size=1, max_size=12),
)
def test_no_window_makes_a_score_or_band_infinite(
    start: list[tuple[int, int, float]], extreme: list[tuple[int, int, float]]
) -> None:
    quiet = [(600, 1, 50_000.0)] * 40
    scorer = new_scorer()
    with np.errstate(all="raise", under="ignore"):
        for step, (requests, failures, p99_us) in enumerate(start + quiet + extreme):
            count, errors = np.array([requests]), np.array([min(failures, requests)])
            carry = np.array([-1]) if step == 0 else None
            scored = scorer.step(make_frame(START_MS + step * SLIDE_MS, count, errors, np.array([p99_us]), carry))
            assert np.isfinite(scored.score).all()
            assert not any(np.isinf(getattr(scored, name)).any() for name in ("expected", "lower", "upper"))


@settings(max_examples=30)
@given(
    values=arrays.arrays(np.float64, st.tuples(st.integers(1, 80), st.just(1), st.integers(1, 3))),
)
def test_detector_takes_any_number_there_is(values: NDArray[np.float64]) -> None:
    detector = Detector(DetectorConfig(warm_steps=5))
    detector.align(np.full(values.shape[-1], -1))
    for step, value in enumerate(values):
        verdicts = detector.step(value, widen=1.0, floor=1e-12, step=step, phase=step / 80)
        assert np.isfinite(verdicts.score).all()
        assert (verdicts.score[:, np.broadcast_to(~np.isfinite(value[0]), value[0].shape)] == 0).all()
        assert np.isfinite(verdicts.expected).all() or not np.isfinite(values).any(axis=0).all()

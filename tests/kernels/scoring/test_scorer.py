"""What a person on call may rely on: what is found, how fast, and what is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from operators.kernels.codec import StateError
from operators.kernels.frames import ANOMALOUS, NORMAL, WARMING
from operators.kernels.local_time import LocalTime
from operators.kernels.scoring import Scorer, ScoringConfig
from tests.kernels.scoring.window_world import LENGTH_MS, SLIDE_MS, START_MS, Incident, make_frame, make_world

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from operators.kernels.frames import ScoredFrame, WindowFrame

    Values = float | list[float]

LATENCY, ERRORS, TRAFFIC = range(3)


def run(frames: Iterable[WindowFrame], config: ScoringConfig | None = None) -> list[ScoredFrame]:
    scorer = Scorer(config or ScoringConfig(), SLIDE_MS, LENGTH_MS)
    return [scorer.step(frame) for frame in frames]


def scores(scored: list[ScoredFrame]) -> NDArray[np.float64]:
    return np.array([frame.score for frame in scored])


def constant_frames(
    panes: int, count: Values = 600, errors: Values = 0, p99_us: Values = 50_000.0
) -> Iterator[WindowFrame]:
    for pane in range(panes):
        values = [np.array([v[pane] if isinstance(v, list) else v]) for v in (count, errors, p99_us)]
        carry = np.array([-1]) if pane == 0 else None
        yield make_frame(START_MS + (pane + 1) * SLIDE_MS, *values, carry)


@pytest.mark.parametrize(
    ("incident", "signal"),
    [
        (Incident(0, start=36, end=72, latency=4), LATENCY),
        (Incident(0, start=36, end=72, errors=0.3), ERRORS),
        (Incident(0, start=36, end=72, traffic=0.1), TRAFFIC),
        (Incident(0, start=36, end=72, traffic=0.0), TRAFFIC),
    ],
    ids=["latency step", "error burst", "traffic drop", "silence"],
)
def test_incident_right_after_the_warm_up_is_found_within_three_slides(incident: Incident, signal: int) -> None:
    found = scores(run(make_world([20.0], 60, (incident,))))[:, signal, 0] >= 1
    assert not found[:36].any()
    assert found[36:39].any()


def test_quiet_world_raises_nothing() -> None:
    assert scores(run(make_world([0.5, 2.0, 8.0, 30.0] * 3, 360, seed=4))).max() < 1


def test_harmless_surge_raises_nothing_while_it_comes_lasts_and_goes() -> None:
    surge = Incident(0, start=60, end=220, traffic=3.0, ramp=24)
    assert scores(run(make_world([20.0], 280, (surge,)))).max() < 1


def test_traffic_far_beyond_any_surge_is_found() -> None:
    flood = Incident(0, start=60, end=100, traffic=8.0)
    assert scores(run(make_world([20.0], 100, (flood,))))[60:, TRAFFIC].max() >= 1


def test_nothing_is_scored_before_thirty_windows() -> None:
    burst = Incident(0, start=10, end=30, latency=10, errors=0.5)
    scored = run(make_world([20.0], 31, (burst,)))
    assert scores(scored[:30]).max() == 0
    assert all(frame.state[0] == WARMING for frame in scored[:30])
    assert scored[30].state[0] != WARMING


def test_state_names_the_verdict() -> None:
    scored = run(make_world([20.0], 60, (Incident(0, start=50, end=60, latency=4),)))
    assert scored[45].state[0] == NORMAL
    assert scored[55].state[0] == ANOMALOUS


def test_value_outside_its_band_is_anomalous_and_no_other_is() -> None:
    incidents = tuple(
        Incident(s, 40 + 3 * s, 80 + s, latency=1 + s, errors=0.03 * s, traffic=0.1 * s) for s in range(8)
    )
    outside_somewhere = 0
    for scored in run(make_world([1.0, 2.0, 4.0, 8.0] * 2, 120, incidents)):
        windows = scored.windows
        p99_ms = np.where(windows.count >= 20, windows.p99_us / 1000, np.nan)
        ratio = np.where(windows.count > 0, windows.errors / np.maximum(windows.count, 1), np.nan)
        values = np.array([p99_ms, ratio, windows.count * 1000 / LENGTH_MS])
        outside = (values > scored.upper) | (values < scored.lower)
        assert np.array_equal(outside, scored.score >= 1)
        outside_somewhere += outside.sum()
    assert outside_somewhere > 50


def test_steady_level_never_scores() -> None:
    assert scores(run(constant_frames(300))).max() < 1


@pytest.mark.parametrize("level", [0.0, 50_000.0])
def test_constant_series_scores_when_it_deviates(level: float) -> None:
    p99_us = [level] * 100 + [level + 200_000]
    assert scores(run(constant_frames(101, p99_us=p99_us)))[100, LATENCY, 0] >= 1


def test_small_deviation_of_a_constant_series_is_held_by_the_gates() -> None:
    assert scores(run(constant_frames(101, p99_us=[50_000.0] * 100 + [58_000.0])))[100, LATENCY, 0] < 1


@pytest.mark.parametrize("factor", [1.8, 4.0, 50.0])
def test_lasting_shift_fires_once_and_becomes_the_new_normal(factor: float) -> None:
    found = scores(run(make_world([20.0], 400, (Incident(0, start=100, end=400, latency=factor),))))[:, LATENCY, 0] >= 1
    assert found[100:110].any()
    assert not found[190:].any()


def test_level_is_found_again_after_an_absorbed_shift_has_gone() -> None:
    long = Incident(0, start=60, end=160, latency=5)
    again = Incident(0, start=300, end=320, latency=5)
    found = scores(run(make_world([20.0], 320, (long, again))))[:, LATENCY, 0] >= 1
    assert found[300:304].any()


def test_latency_of_few_requests_is_unknown() -> None:
    frames = constant_frames(60, count=[600] * 50 + [19] * 10, p99_us=[50_000.0] * 50 + [5_000_000.0] * 10)
    scored = run(frames)[55]
    assert scored.score[LATENCY, 0] == 0
    assert np.isnan(scored.upper[LATENCY, 0])


def test_p99_of_few_requests_needs_the_support_of_p90() -> None:
    """One slow request among fifty is the P99; it takes more of them to move the P90, and that is an incident."""
    rows = [(50_000.0, 30_000.0)] * 100 + [(2_000_000.0, 30_000.0), (2_000_000.0, 200_000.0)]
    frames = [
        replace(frame, p90_us=np.array([p90_us]))
        for frame, (_, p90_us) in zip(constant_frames(102, 50, p99_us=[p99 for p99, _ in rows]), rows, strict=True)
    ]
    alone, supported = scores(run(frames))[100:, LATENCY, 0]
    assert alone < 1 <= supported


def test_silence_leaves_latency_and_errors_as_they_were() -> None:
    frames = list(constant_frames(100, count=[600] * 50 + [0] * 40 + [600] * 10))
    scored = run(frames)
    assert scored[70].score[LATENCY, 0] == scored[70].score[ERRORS, 0] == 0
    assert scored[95].expected[LATENCY, 0] == pytest.approx(scored[49].expected[LATENCY, 0], rel=1e-3)


def test_few_requests_widen_the_band() -> None:
    ungated = ScoringConfig(latency_min_ms=0, latency_min_ratio=0)
    few, many = (
        run(constant_frames(61, count=[600] * 60 + [count]), ungated)[60].upper[LATENCY, 0] for count in (25, 600)
    )
    assert few > many


def test_signals_without_downward_watch_have_no_lower_band() -> None:
    scored = run(constant_frames(60))[-1]
    assert np.isnan(scored.lower[[LATENCY, ERRORS]]).all()
    assert not np.isnan(scored.lower[TRAFFIC]).any()


def test_series_of_all_signals_take_at_most_1200_bytes() -> None:
    scorer = Scorer(ScoringConfig(), SLIDE_MS, LENGTH_MS)
    for frame in make_world([1.0] * 50, 40):
        scorer.step(frame)
    assert scorer.series == 50
    assert scorer.nbytes / 50 <= 1200


def test_frame_of_other_rows_needs_a_carry() -> None:
    scorer = Scorer(ScoringConfig(), SLIDE_MS, LENGTH_MS)
    frame = make_frame(START_MS, np.array([1]), np.array([0]), np.array([1.0]), None)
    with pytest.raises(ValueError, match="`carry`"):
        scorer.step(frame)


def test_state_of_windows_with_another_overlap_is_refused() -> None:
    data = Scorer(ScoringConfig(), SLIDE_MS, LENGTH_MS).to_bytes()
    with pytest.raises(StateError, match="layout"):
        Scorer.from_bytes(ScoringConfig(), SLIDE_MS, 2 * LENGTH_MS, data)


@pytest.mark.parametrize(
    "wrong",
    [{"surprise": 0}, {"surprise": float("nan")}, {"warm_windows": 0}, {"errors_min": 1}, {"latency_min_ms": -1}],
    ids=str,
)
def test_impossible_setting_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScoringConfig(**wrong)


def test_slide_that_does_not_divide_the_length_is_refused() -> None:
    with pytest.raises(ValueError, match="slide_ms"):
        Scorer(ScoringConfig(), 7_000, 60_000)


@pytest.mark.parametrize(("errors", "found"), [(4, False), (5, True)])
def test_errors_count_from_the_fifth_one_in_a_window(errors: int, found: bool) -> None:  # noqa: FBT001
    frames = constant_frames(101, count=30, errors=[0] * 100 + [errors])
    assert (scores(run(frames))[100, ERRORS, 0] >= 1) == found


def test_profile_of_the_day_follows_local_time_through_a_change_of_the_clocks() -> None:
    """What happens at noon by the clock on the wall goes on being expected when the clock is changed."""
    hour_ms = 3_600_000
    changes_ms = START_MS + 20 * 24 * hour_ms
    local = LocalTime("Somewhere", (changes_ms,), (0, hour_ms))
    scorer = Scorer(ScoringConfig(local_time=local), 600_000, 600_000)
    expected = {}
    for step in range(26 * 144):
        end_ms = START_MS + step * 600_000
        hour = local.local_ms(end_ms) // hour_ms % 24
        rate = 6_000 if hour == 12 else 2_000
        frame = make_frame(
            end_ms, np.array([rate]), np.array([0]), np.array([5e4]), np.array([-1]) if step == 0 else None
        )
        expected[end_ms] = (hour, scorer.step(frame).expected[TRAFFIC, 0])
    late = [value for end_ms, (hour, value) in expected.items() if end_ms > changes_ms + 24 * hour_ms and hour == 12]
    before = [
        value for end_ms, (hour, value) in expected.items() if 0 < changes_ms - end_ms < 5 * 24 * hour_ms and hour == 12
    ]
    assert np.median(late) == pytest.approx(np.median(before), rel=0.2)


def test_another_time_zone_begins_the_profile_anew_and_nothing_else() -> None:
    scorer = Scorer(ScoringConfig(), 600_000, 600_000)
    for step in range(3 * 144):
        frame = make_frame(
            START_MS + step * 600_000,
            np.array([600]),
            np.array([0]),
            np.array([5e4]),
            np.array([-1]) if step == 0 else None,
        )
        scorer.step(frame)
    data = scorer.to_bytes()
    same = Scorer.from_bytes(ScoringConfig(), 600_000, 600_000, data)
    other = Scorer.from_bytes(ScoringConfig(local_time=LocalTime("Here", (), (3_600_000,))), 600_000, 600_000, data)
    assert same.nbytes == scorer.nbytes > other.nbytes
    assert other.series == 1

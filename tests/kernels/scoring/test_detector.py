"""The detector on one value: its season, its memory, its snapshot."""

from __future__ import annotations

import numpy as np
import pytest

from operators.kernels.codec import StateError, pack, unpack
from operators.kernels.scoring import Detector, DetectorConfig
from operators.kernels.scoring.season import SeasonConfig

DAY = 288


def daily(days: int, seed: int = 1) -> np.ndarray:
    """A series that doubles within ten minutes every day at noon, for two hours."""
    steps = np.arange(days * DAY)
    noon = (steps % DAY >= DAY // 2) & (steps % DAY < DAY // 2 + 24)
    return 10 + 10 * noon + np.random.default_rng(seed).normal(0, 0.3, days * DAY)


def run(detector: Detector, series: np.ndarray, start: int = 0) -> np.ndarray:
    if not detector.series:
        detector.align(np.full(1, -1))
    score = []
    for step, value in enumerate(series, start):
        verdicts = detector.step(np.array([[value]]), widen=1.0, floor=1e-9, step=step, phase=step % DAY / DAY)
        score.append(verdicts.score[0, 0])
    return np.array(score)


def test_what_happens_every_day_is_expected_after_some_days() -> None:
    score = run(Detector(DetectorConfig(steps_per_day=DAY)), daily(8)).reshape(8, DAY)
    assert score[0].max() >= 1
    assert np.median(score[3:].max(axis=1)) < 1


def test_what_is_missing_from_the_day_is_found() -> None:
    series = daily(9)
    series[8 * DAY + DAY // 2 : 8 * DAY + DAY // 2 + 24] -= 10
    assert run(Detector(DetectorConfig(steps_per_day=DAY)), series)[8 * DAY :].max() >= 1


def test_season_takes_no_memory_before_a_day_has_passed() -> None:
    detector = Detector(DetectorConfig(steps_per_day=DAY))
    run(detector, daily(1))
    before = detector.nbytes
    run(detector, daily(1), DAY)
    assert detector.nbytes > before


def test_season_can_be_switched_off() -> None:
    detector = Detector(DetectorConfig(steps_per_day=DAY, season=SeasonConfig(bins=0)))
    run(detector, daily(1))
    before = detector.nbytes
    run(detector, daily(1), DAY)
    assert detector.nbytes == before


def test_new_series_beside_an_old_one_has_no_season_of_its_neighbour() -> None:
    detector = Detector(DetectorConfig(steps_per_day=DAY))
    run(detector, daily(3))
    detector.align(np.array([0, -1]))
    alone = Detector(DetectorConfig(steps_per_day=DAY))
    expected = run(alone, daily(2, seed=2), 3 * DAY)
    found = []
    for step, value in enumerate(daily(2, seed=2), 3 * DAY):
        values = np.array([[10.0, value]])
        found.append(detector.step(values, widen=1.0, floor=1e-9, step=step, phase=step % DAY / DAY).score[0, 1])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stop", [1, 200, 2 * DAY + 7])
def test_snapshot_holds_the_season_too(stop: int) -> None:
    series, config = daily(4), DetectorConfig(steps_per_day=DAY)
    straight = run(Detector(config), series)
    first = Detector(config)
    run(first, series[:stop])
    resumed = Detector.from_bytes(config, first.to_bytes())
    np.testing.assert_array_equal(run(resumed, series[stop:], stop), straight[stop:])


def test_state_of_other_signals_is_refused() -> None:
    with pytest.raises(StateError, match="layout"):
        Detector.from_bytes(DetectorConfig(signals=2), Detector(DetectorConfig()).to_bytes())
    with pytest.raises(StateError, match="layout"):
        Detector.from_bytes(DetectorConfig(single_precision=True), Detector(DetectorConfig()).to_bytes())


def test_series_far_from_zero_is_judged_by_its_own_scale() -> None:
    random = np.random.default_rng(3)
    series = 1e6 + random.normal(0, 5e3, 400)
    series[350] += 6e4
    score = run(Detector(DetectorConfig(steps_per_day=DAY)), series)
    assert score[350] >= 1
    assert score[:350].max() < 1


def weekly(weeks: int) -> np.ndarray:
    """A series that stays low all through every seventh day, where it else rises at noon."""
    series = daily(7 * weeks, seed=5)
    for week in range(weeks):
        day = 7 * week + 6
        series[day * DAY : (day + 1) * DAY] = 10 + np.random.default_rng(week).normal(0, 0.3, DAY)
    return series


def worst_of_seventh_day(week: SeasonConfig) -> float:
    """Score the first bend of the last seventh day, at noon, by a detector with such a profile of the week."""
    detector = Detector(DetectorConfig(steps_per_day=DAY, week=week))
    detector.align(np.full(1, -1))
    scores = []
    for step, value in enumerate(weekly(6)):
        verdicts = detector.step(
            np.array([[value]]),
            widen=1.0,
            floor=1e-9,
            step=step,
            phase=step % DAY / DAY,
            week=step % (7 * DAY) / 7 / DAY,
        )
        scores.append(float(verdicts.score[0, 0]))
    noon = 41 * DAY + DAY // 2
    return max(scores[noon : noon + 24])


def test_day_that_differs_every_week_is_expected_with_a_profile_of_the_week() -> None:
    assert worst_of_seventh_day(SeasonConfig(bins=168, memory_periods=4)) < worst_of_seventh_day(SeasonConfig(bins=0))


def test_profile_with_other_bins_is_learned_anew_and_the_rest_goes_on() -> None:
    detector = Detector(DetectorConfig(steps_per_day=DAY))
    run(detector, daily(3))
    other = DetectorConfig(steps_per_day=DAY, season=SeasonConfig(bins=24))
    resumed = Detector.from_bytes(other, detector.to_bytes())
    assert resumed.nbytes < detector.nbytes
    assert run(resumed, daily(1), 3 * DAY)[0] > 0, "it is not warming"


@pytest.mark.parametrize("version", [1, 2])
def test_state_of_an_earlier_version_is_read(version: int) -> None:
    config = DetectorConfig(steps_per_day=DAY)
    detector = Detector(config)
    run(detector, daily(4))
    _, _, arrays = unpack("detector", (3,), detector.to_bytes())
    first = {"levels": arrays["levels"], "tails": arrays["tails"], "season": arrays["season_bins"]}
    tempered = {} if version == 1 else {"temper": np.zeros((5, 2, 1))}
    resumed = Detector.from_bytes(config, pack("detector", version, {}, first | tempered))
    assert run(resumed, daily(5)[4 * DAY :], 4 * DAY).max() < 1, "the rise at noon is known"


def test_end_of_what_happened_once_is_no_surprise_of_the_season() -> None:
    """The profile is a day old, and an hour of more than usual comes to an end within a bin of it."""
    series = np.random.default_rng(4).normal(10, 0.3, 2 * DAY)
    series[DAY + 99 : DAY + 111] += 3
    seasons = (SeasonConfig(), SeasonConfig(bins=0))
    with_season, without = (run(Detector(DetectorConfig(steps_per_day=DAY, season=s)), series) for s in seasons)
    after = slice(DAY + 111, DAY + 130)
    assert with_season[after].max() < without[after].max() + 0.2


def test_small_bursts_are_no_surprise_where_large_ones_were() -> None:
    series = np.zeros(6 * DAY)
    series[np.arange(DAY, 4 * DAY, 97)] = 200.0
    series[np.arange(4 * DAY, 6 * DAY, 61)] = 1.0
    score = run(Detector(DetectorConfig(steps_per_day=DAY)), series)
    assert score[DAY] >= 1
    assert score[4 * DAY :].max() < 1


def test_small_burst_of_a_series_that_was_never_restless_is_one() -> None:
    series = np.zeros(3 * DAY)
    series[2 * DAY] = 1.0
    assert run(Detector(DetectorConfig(steps_per_day=DAY)), series)[2 * DAY] >= 1

"""The NAB score against what its specification says of single detections."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation import nab

STANDARD, LOW_FALSE_POSITIVES, LOW_FALSE_NEGATIVES = nab.PROFILES
TIME_S = np.arange(1000.0) * 300
WINDOW = (TIME_S[500], TIME_S[599])


def detected(*rows: int) -> np.ndarray:
    found = np.zeros(1000, bool)
    found[list(rows)] = True
    return found


def score(*rows: int, profile: nab.Profile = STANDARD, spans: tuple[tuple[float, float], ...] = (WINDOW,)) -> float:
    return nab.normalised([nab.judge_rows(TIME_S, spans)], [detected(*rows)], profile)


def sigmoid(x: float) -> float:
    return 2 / (1 + math.exp(5 * x)) - 1


def test_silent_detector_has_zero_and_a_perfect_one_a_hundred() -> None:
    assert score() == 0
    assert score(500) == pytest.approx(100)


def test_worth_of_a_detection_falls_along_its_window() -> None:
    """Half way, the scaled sigmoid is 0.848 of 0.987 at the left edge."""
    half_way = (1 + sigmoid(-0.5) / sigmoid(-1)) / 2 * 100
    assert score(550) == pytest.approx(half_way)
    assert score(599) == pytest.approx((1 + sigmoid(-0.01) / sigmoid(-1)) / 2 * 100)


def test_only_the_earliest_detection_of_a_window_counts() -> None:
    assert score(500, 520, 599) == score(500)


@pytest.mark.parametrize(("profile", "cost"), [(STANDARD, 0.11), (LOW_FALSE_POSITIVES, 0.22)])
def test_detection_before_any_window_costs_a_full_false_detection(profile: nab.Profile, cost: float) -> None:
    assert score(300, 500, profile=profile) == pytest.approx(100 * (2 - cost) / 2)


def test_detection_right_behind_a_window_costs_little_and_more_farther_on() -> None:
    assert score(500, 600) == pytest.approx(100 * (2 + 0.11 * sigmoid(1 / 99)) / 2)
    assert score(500) > score(500, 600) > score(500, 650) > score(500, 999)


def test_misses_cost_double_where_misses_matter() -> None:
    two = (WINDOW, (TIME_S[800], TIME_S[849]))
    assert score(500, spans=two) == pytest.approx(100 * (1 - 1 + 2) / 4)
    assert score(500, profile=LOW_FALSE_NEGATIVES, spans=two) == pytest.approx(100 * (1 - 2 + 4) / 6)


def test_rows_for_learning_are_not_judged() -> None:
    assert score(*range(150), 500) == score(500)
    assert score(150, 500) < score(500)


def test_no_more_than_750_rows_are_for_learning() -> None:
    time_s = np.arange(20_000.0)
    sheet = nab.judge_rows(time_s, [])
    assert np.count_nonzero(sheet.worth == 0) == 750


def test_files_without_windows_only_cost() -> None:
    sheets = [nab.judge_rows(TIME_S, [WINDOW]), nab.judge_rows(TIME_S, [])]
    assert nab.normalised(sheets, [detected(500), detected(400)], STANDARD) == pytest.approx(100 * 1.89 / 2)


def test_detections_before_in_and_behind_a_window_add_up() -> None:
    """The shape of the example in the specification: a false one before, two in the window, one close and one far."""
    behind = 600 + 44
    near = sigmoid((behind - 599) / 99)
    assert near == pytest.approx(-0.8135, abs=1e-3)
    sheet = nab.judge_rows(TIME_S, [WINDOW])
    inside = sigmoid(-(599 - 505 + 1) / 100) / sigmoid(-1)
    assert nab.raw_score(sheet, detected(300, 505, 560, behind, 950), STANDARD) == pytest.approx(
        -0.11 + inside + 0.11 * near - 0.11
    )


def test_sigmoid_has_the_values_of_the_specification() -> None:
    """0.98661 at the left edge of a window, 0.84828 half way, 0 at its right edge, and the same negative behind it."""
    assert [round(sigmoid(x), 5) for x in (-1, -0.5, 0, 1)] == [0.98661, 0.84828, 0.0, -0.98661]
    sheet = nab.judge_rows(TIME_S, [WINDOW])
    assert sheet.worth[599 + 99] == pytest.approx(-0.98661, abs=1e-5)
    assert sheet.worth[599 + 3 * 99] == -1
    assert sheet.worth[500] == 1

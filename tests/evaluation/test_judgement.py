"""What alerts are worth: counted by hand on small recordings."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.episodes import openings
from evaluation.halves import spreads
from evaluation.judgement import Labelled, delay_f1, worth_at, worth_at_budget
from evaluation.recordings import Recording


def recording(time_s: np.ndarray) -> Recording:
    return Recording("one.csv", [str(t) for t in time_s], time_s, np.zeros(len(time_s)))


def labelled(
    scores: dict[int, float], *spans: tuple[int, int], rows: int = 1440, gap: tuple[int, int] = (0, 0)
) -> Labelled:
    time_s = np.arange(rows) * 60.0
    score = np.zeros(rows)
    for row, value in scores.items():
        score[row] = value
    kept = np.ones(rows, bool)
    kept[slice(*gap)] = False
    return Labelled(recording(time_s[kept]), score[kept], [(time_s[a], time_s[b]) for a, b in spans])


def test_episode_takes_in_what_follows_within_its_quiet_time() -> None:
    opens = openings(np.array([0, 2, 2, 0, 1, 0, 0, 3, 0, 1.0]), 1.0, quiet_rows=3)
    assert np.flatnonzero(opens).tolist() == [1, 7]


def test_alerts_and_events_are_counted_once_each() -> None:
    one = labelled({100: 2, 105: 2, 700: 2, 1300: 2}, (90, 130), (690, 720), (1000, 1010))
    worth = worth_at([one], 1.0)
    assert worth.recall == pytest.approx(2 / 3)
    assert worth.precision == pytest.approx(2 / 3)
    assert worth.delay_s == pytest.approx(600)
    assert worth.alerts_per_day == pytest.approx(3, rel=1e-2)


def test_budget_takes_the_lowest_threshold_that_keeps_it() -> None:
    one = labelled({100: 5, 500: 4, 900: 3, 1300: 2}, (95, 105))
    worth = worth_at_budget([one], 2.1)
    assert worth.alerts_per_day == pytest.approx(2, rel=1e-2)
    assert 3 < worth.threshold <= 4


def test_run_found_within_seven_rows_counts_as_found_with_all_its_rows() -> None:
    assert delay_f1([labelled({107: 1}, (100, 149))], 1.0) == 1
    assert delay_f1([labelled({108: 1}, (100, 149))], 1.0) == 0


def test_false_rows_count_singly() -> None:
    found = {100: 1.0} | {500 + row: 1.0 for row in range(10)}
    assert delay_f1([labelled(found, (100, 109))], 1.0) == pytest.approx(20 / 30)


def test_gap_is_filled_with_rows_without_label() -> None:
    """So it splits a labelled run: two rows before it are missed, forty-one behind it are found."""
    one = labelled({110: 1}, (100, 149), gap=(102, 109))
    assert delay_f1([one], 1.0) == pytest.approx(82 / 84)


def test_halves_of_like_series_are_alike() -> None:
    series = [labelled({100: 2, 1500: 3}, (1500, 1510), rows=20_000)] * 4
    for one in spreads(series, shipped=1.0, budget=0.1, thresholds=[0.5, 1.5, 2.5, 4]):
        assert one.recall == 1
        assert one.precision == 1, "the threshold that keeps the budget leaves out the wrong one"
        assert one.nab == pytest.approx(100)
        assert one.f1 == pytest.approx(22 / 23)


def test_halves_show_that_series_differ() -> None:
    good, bad = labelled({700: 3}, (695, 705), rows=20_000), labelled({900: 3}, (695, 705), rows=20_000)
    mean, low = spreads([good, bad], shipped=1.0, budget=0.5, thresholds=[1.0])
    assert 0 < mean.recall < 1
    assert low.recall == low.precision == 0

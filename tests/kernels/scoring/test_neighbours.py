"""The nearest-neighbour channel: new patterns score, old ones do not, and each series is judged by itself."""

from __future__ import annotations

import numpy as np
import pytest

from operators.kernels.codec import StateError
from operators.kernels.scoring import Neighbours, NeighboursConfig

CONFIG = NeighboursConfig(memory=200)


def waves(rows: int, seed: int) -> np.ndarray:
    return np.sin(np.arange(rows) * 2 * np.pi / 24) + np.random.default_rng(seed).normal(0, 0.05, rows)


def run(values: np.ndarray, config: NeighboursConfig = CONFIG) -> np.ndarray:
    neighbours = Neighbours(config, values.shape[1])
    return np.array([neighbours.step(row) for row in values])


def test_pattern_that_was_never_seen_scores_though_its_values_were() -> None:
    """Half a wave stands still at a level that every wave passes."""
    series = waves(400, 1)
    series[330:345] = 0.0
    score = run(series[:, None])[:, 0]
    assert score[331:346].max() >= 1
    assert score[:330].max() < 1


def test_nothing_is_judged_before_there_is_a_past() -> None:
    score = run(waves(60, 2)[:, None])[:, 0]
    first = CONFIG.warm_runs + 2 * CONFIG.length - 1
    assert not score[:first].any()
    assert score[first] > 0


def test_constant_series_never_scores() -> None:
    assert run(np.full((300, 1), 7.0)).max() == 0


def test_series_score_the_same_alone_and_together() -> None:
    together = np.stack([waves(300, 3), 100 * waves(300, 4), np.zeros(300)], axis=1)
    np.testing.assert_array_equal(run(together)[:, [1]], run(together[:, [1]]))


def test_unknown_values_leave_a_series_as_it_was() -> None:
    series = waves(300, 5)
    gaps = np.insert(series, [100, 200, 200], np.nan)
    score = run(gaps[:, None])[:, 0]
    assert not score[np.isnan(gaps)].any()
    np.testing.assert_array_equal(score[~np.isnan(gaps)], run(series[:, None])[:, 0])


def test_huge_values_leave_scores_finite() -> None:
    series = waves(200, 6)
    series[[150, 170]] = [1e300, -np.inf]
    assert np.isfinite(run(series[:, None])).all()


def test_resumed_memory_goes_on_as_if_it_had_not_stopped() -> None:
    values = np.stack([waves(300, 3), waves(300, 4)], axis=1)
    first = Neighbours(CONFIG, 2)
    before = [first.step(row) for row in values[:150]]
    resumed = Neighbours.from_bytes(CONFIG, first.to_bytes())
    np.testing.assert_array_equal(before + [resumed.step(row) for row in values[150:]], run(values))


def test_memory_follows_its_series() -> None:
    values = np.stack([waves(300, 3), waves(300, 4)], axis=1)
    moved = Neighbours(CONFIG, 2)
    for row in values[:150]:
        moved.step(row)
    moved.align(np.array([1, -1, 0]))
    found = np.array([moved.step(np.array([row[1], 5.0, row[0]])) for row in values[150:]])
    np.testing.assert_array_equal(found[:, [2, 0]], run(values)[150:])


def test_steps_that_share_data_are_compared_at_the_distance_of_a_window() -> None:
    """A series that repeats each of its values six times has the runs of the series itself."""
    series = waves(300, 7)
    series[250:265] = 0.0
    overlapping = NeighboursConfig(memory=200, overlap=6)
    neighbours = Neighbours(overlapping, 1)
    slow = [neighbours.step(np.array([value]), step)[0] for step, value in enumerate(np.repeat(series, 6))]
    assert max(slow[251 * 6 : 266 * 6]) >= 1
    assert max(slow[: 250 * 6]) < 1


def test_runs_of_another_length_are_refused() -> None:
    with pytest.raises(StateError, match="other runs"):
        Neighbours.from_bytes(NeighboursConfig(length=4), Neighbours(CONFIG, 1).to_bytes())

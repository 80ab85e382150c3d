"""The nearest-neighbour channel: new patterns score, old ones do not, and each series is judged by itself."""

from __future__ import annotations

import numpy as np

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

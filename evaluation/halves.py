"""Many random halves of the series: how far a figure depends on which series it was measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from evaluation import nab
from evaluation.episodes import openings
from evaluation.judgement import count_at, delay_rows, f1_of, worth_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.judgement import Labelled

HALVES: Final = 100
_SEED: Final = 7
_LOW: Final = 0.05


@dataclass(frozen=True, slots=True)
class Spread:
    """Figures over many halves, each the mean or a low quantile of them.

    Attributes:
        name: What was taken of them.
        nab: Standard score of the benchmark at the shipped threshold.
        f1: Delay-7 F1 at the shipped threshold.
        recall: Event recall at the budget of each half.
        precision: Precision there.
    """

    name: str
    nab: float
    f1: float
    recall: float
    precision: float


def spreads(
    series: Sequence[Labelled], *, shipped: float, budget: float, thresholds: Sequence[float]
) -> tuple[Spread, ...]:
    """Judge random halves of the series, each at its own threshold for the budget.

    Args:
        series: Labelled and scored recordings, two or more.
        shipped: The threshold for what needs no budget.
        budget: Alerts a series a day.
        thresholds: Thresholds to choose from, rising.

    Returns:
        The mean of all halves, and what all but five in a hundred exceed, figure by figure.
    """
    counted = [[count_at(one, threshold) for one in series] for threshold in thresholds]
    rows = [delay_rows(one, shipped) for one in series]
    sheets = [nab.judge_rows(one.recording.time_s, one.spans) for one in series]
    alerts = [openings(one.score, shipped) for one in series]
    random = np.random.default_rng(_SEED)
    figures = []
    for _ in range(HALVES):
        half = random.permutation(len(series))[: len(series) // 2].tolist()
        chosen = [series[place] for place in half]
        worths = [
            worth_of(chosen, [counts[place] for place in half], threshold)
            for threshold, counts in zip(thresholds, counted, strict=True)
        ]
        worth = next((one for one in worths if one.alerts_per_day <= budget), worths[-1])
        score = nab.normalised([sheets[i] for i in half], [alerts[i] for i in half], nab.PROFILES[0])
        figures.append((score, f1_of(rows[i] for i in half), worth.recall, worth.precision))
    found = np.array(figures)
    return (
        Spread("mean", *np.nanmean(found, axis=0).tolist()),
        Spread("all but 5 exceed", *np.nanquantile(found, _LOW, axis=0).tolist()),
    )

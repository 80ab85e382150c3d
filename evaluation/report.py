"""The report: what the alerts of a detector are worth on labelled recordings, beside those of mere chance."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from evaluation import nab
from evaluation.episodes import openings
from evaluation.halves import HALVES, spreads
from evaluation.judgement import Labelled, delay_f1, worth_at, worth_at_budget
from evaluation.replay import Random

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Judge = Callable[[Sequence[Labelled], float], float]

BUDGETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Alerts a series a day."""

JUDGED_BUDGET: Final = 0.5
"""Alerts a series a day that a person can bear, at which the halves are compared."""

SHIPPED_THRESHOLD: Final = 1.0
_CANDIDATES: Final = 60
_HALVES: Final = 2


def render(name: str, series: Sequence[Labelled], us_per_row: float | None) -> Iterator[str]:
    """Write the report, line by line.

    Args:
        name: What to call the detector.
        series: Labelled and scored recordings, in an order that does not depend on the scores.
        us_per_row: Microseconds that scoring took for each row; None when the scores were read from files.
    """
    chance = _by_chance(series)
    events = sum(len(one.spans) for one in series)
    rows = sum(len(one.score) for one in series)
    days = sum(one.days for one in series)
    yield f"{len(series)} series, {rows} rows, {days:.0f} days of series, {events} labelled events"
    if us_per_row is not None:
        yield f"{us_per_row:.2f} µs of CPU a row"
    yield from _render_nab(series, chance)
    yield ""
    yield f"{'alerts':24}{'threshold':>10}{'a day':>8}{'recall':>8}{'precision':>10}{'delay min':>10}{'delay-7 F1':>11}"
    yield _worth_row(f"{name}, shipped", series, SHIPPED_THRESHOLD)
    for budget in BUDGETS:
        for label, chosen in ((f"{name}, {budget:g} a day", series), ("  by chance", chance)):
            yield _worth_row(label, chosen, worth_at_budget(chosen, budget).threshold)
    yield from _render_halves(series)
    fitted = fitted_on_other_half(series, delay_f1)
    yield f"delay-7 F1 at the threshold fitted on the other half: {fitted:.3f}"


def _render_nab(series: Sequence[Labelled], chance: Sequence[Labelled]) -> Iterator[str]:
    yield ""
    yield f"{'NAB score':24}{'shipped':>10}{'other half':>12}{'by chance':>12}"
    for profile in nab.PROFILES:
        shipped = nab_score(series, SHIPPED_THRESHOLD, profile=profile)
        fitted = fitted_on_other_half(series, partial(nab_score, profile=profile))
        rate = worth_at(series, SHIPPED_THRESHOLD).alerts_per_day
        guessed = nab_score(chance, worth_at_budget(chance, rate).threshold, profile=profile)
        yield f"{profile.name:24}{shipped:>10.1f}{fitted:>12.1f}{guessed:>12.1f}"


def _render_halves(series: Sequence[Labelled]) -> Iterator[str]:
    """Judge each half alone: whoever tunes looks at the first only, and may believe the second."""
    yield ""
    at = f"at {JUDGED_BUDGET:g} a day"
    yield f"{'half':24}{'series':>10}{'NAB':>8}{'F1':>8}{'recall':>8}{'precision':>10}  {at}"
    for name, half in (("to develop with", series[::2]), ("held out", series[1::2])):
        if not half:
            continue
        worth = worth_at_budget(half, JUDGED_BUDGET)
        score = nab_score(half, SHIPPED_THRESHOLD, profile=nab.PROFILES[0])
        f1 = delay_f1(half, SHIPPED_THRESHOLD)
        yield f"{name:24}{len(half):>10}{score:>8.1f}{f1:>8.3f}{worth.recall:>8.2f}{worth.precision:>10.2f}"
    if len(series) < _HALVES:
        return
    thresholds = _candidates(series)
    yield f"{HALVES} random halves:"
    for one in spreads(series, shipped=SHIPPED_THRESHOLD, budget=JUDGED_BUDGET, thresholds=thresholds):
        yield f"  {one.name:32}{one.nab:>8.1f}{one.f1:>8.3f}{one.recall:>8.2f}{one.precision:>10.2f}"


def nab_score(series: Sequence[Labelled], threshold: float, *, profile: nab.Profile) -> float:
    """Score the alerts at a threshold as NAB does: 0 for silence, 100 for perfection."""
    sheets = [nab.judge_rows(one.recording.time_s, one.spans) for one in series]
    alerts = [openings(one.score, threshold) for one in series]
    return nab.normalised(sheets, alerts, profile)


def fitted_on_other_half(series: Sequence[Labelled], judge: Judge) -> float:
    """Judge each half of the series at the threshold that is best on the other one; every second series is a half.

    Args:
        series: Labelled and scored recordings.
        judge: Takes series and a threshold, and returns a number that should be large.

    Returns:
        The mean over both halves, weighted by their events.
    """
    halves = [half for half in (series[::2], series[1::2]) if sum(len(one.spans) for one in half)]
    if len(halves) < _HALVES:
        return float("nan")
    candidates = _candidates(series)
    total = weights = 0.0
    for judged, other in (halves, halves[::-1]):
        best = candidates[int(np.nanargmax([judge(other, threshold) for threshold in candidates]))]
        weight = sum(len(one.spans) for one in judged)
        total += weight * judge(judged, best)
        weights += weight
    return total / weights


def _candidates(series: Sequence[Labelled]) -> list[float]:
    """Return thresholds to choose from: from many alerts to nearly none, evenly by the share of rows above them."""
    scores = np.concatenate([one.score for one in series])
    shares = np.geomspace(0.05, 1e-5, _CANDIDATES)
    return sorted({float(value) for value in np.quantile(scores, 1 - shares) if value > 0}) or [SHIPPED_THRESHOLD]


def _by_chance(series: Sequence[Labelled]) -> list[Labelled]:
    scores = Random().score([one.recording for one in series])
    return [replace(one, score=score) for one, score in zip(series, scores, strict=True)]


def _worth_row(label: str, series: Sequence[Labelled], threshold: float) -> str:
    worth = worth_at(series, threshold)
    return (
        f"{label:24}{threshold:>10.3f}{worth.alerts_per_day:>8.2f}{worth.recall:>8.2f}{worth.precision:>10.2f}"
        f"{worth.delay_s / 60:>10.0f}{delay_f1(series, threshold):>11.3f}"
    )

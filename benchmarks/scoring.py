"""CPU time of scoring one frame, by the number of series of the shard: `python -m benchmarks.scoring`.

Prints one row for each size: microseconds a step, microseconds a series and step, after the warm-up and when a day has
passed, so that the profile of the day is there; then bytes of state a series, in memory and in a snapshot. CPU time,
median of several rounds; the input is made before the clock starts.
"""

from __future__ import annotations

import statistics
import time
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.frames import WindowFrame
from operators.kernels.scoring import Scorer, ScoringConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES: Final = (1, 5, 50, 1_000, 10_000)
SLIDE_MS: Final = 10_000
LENGTH_MS: Final = 60_000
WARM_STEPS: Final = 60
ROUNDS: Final = 5
SERIES_STEPS: Final = 40_000
DAY_STEPS: Final = 86_400_000 // SLIDE_MS


def make_frames(series: int, steps: int) -> Iterator[WindowFrame]:
    """Make plausible windows, seeded; only the first frame has a `carry`."""
    random = np.random.default_rng(series)
    names, endpoints = [f"service-{row}" for row in range(series)], ["/"] * series
    zeros = np.zeros(series, np.int64)
    for step in range(steps):
        count = random.poisson(400, series)
        p99_us = 80_000 * np.exp(random.normal(0, 0.1, series))
        end_ms = 1_700_000_040_000 + step * SLIDE_MS
        carry = np.full(series, -1) if step == 0 else None
        errors = random.binomial(count, 0.002)
        yield WindowFrame(
            end_ms - LENGTH_MS, end_ms, names, endpoints, count, errors, zeros, zeros, p99_us, p99_us, p99_us, carry
        )


def measure(series: int) -> tuple[float, float, Scorer]:
    """Return the microseconds of CPU that one step takes, when young and after a day, and the scorer after it."""
    steps = min(max(SERIES_STEPS // series, 10), 1_000)
    scorer = Scorer(ScoringConfig(), SLIDE_MS, LENGTH_MS)
    frames = make_frames(series, WARM_STEPS + DAY_STEPS + 2 * ROUNDS * steps)
    _pass(scorer, frames, WARM_STEPS)
    young_us = _median_us(scorer, frames, steps)
    _pass(scorer, frames, DAY_STEPS)
    return young_us, _median_us(scorer, frames, steps), scorer


def _pass(scorer: Scorer, frames: Iterator[WindowFrame], steps: int) -> None:
    for frame in islice(frames, steps):
        scorer.step(frame)


def _median_us(scorer: Scorer, frames: Iterator[WindowFrame], steps: int) -> float:
    rounds = []
    for _ in range(ROUNDS):
        batch = list(islice(frames, steps))
        start = time.process_time()
        for frame in batch:
            scorer.step(frame)
        rounds.append((time.process_time() - start) / steps * 1e6)
    return statistics.median(rounds)


def main() -> None:
    """Print the table."""
    titles = ("series", "µs/step", "µs/series", "after a day", "B/series", "B snapshot")
    print(" ".join(f"{title:>11}" for title in titles))
    for series in SIZES:
        young_us, old_us, scorer = measure(series)
        bytes_each, snapshot = scorer.nbytes / series, len(scorer.to_bytes()) / series
        print(
            f"{series:>11} {young_us:>11.0f} {young_us / series:>11.2f} {old_us / series:>11.2f}"
            f" {bytes_each:>11.0f} {snapshot:>11.0f}"
        )


if __name__ == "__main__":
    main()

"""CPU time of scoring one frame, by the number of series of the shard: `python -m benchmarks.scoring`.

Prints one row for each size: microseconds a step, microseconds a series and step, bytes of state a series, in
memory and in a snapshot. Process time, median of several rounds, after the warm-up; the input is made before the clock
starts.
"""

from __future__ import annotations

import statistics
import time
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


def measure(series: int) -> tuple[float, Scorer]:
    """Return the microseconds of CPU that one step takes, and the scorer after it."""
    steps = max(SERIES_STEPS // series, 10)
    steps = min(steps, 1_000)
    scorer = Scorer(ScoringConfig(), SLIDE_MS, LENGTH_MS)
    frames = make_frames(series, WARM_STEPS + ROUNDS * steps)
    for _ in range(WARM_STEPS):
        scorer.step(next(frames))
    rounds = []
    for _ in range(ROUNDS):
        batch = [next(frames) for _ in range(steps)]
        start = time.process_time()
        for frame in batch:
            scorer.step(frame)
        rounds.append((time.process_time() - start) / steps * 1e6)
    return statistics.median(rounds), scorer


def main() -> None:
    """Print the table."""
    print(f"{'series':>8} {'µs/step':>10} {'µs/series':>10} {'B/series':>10} {'B snapshot':>10}")
    for series in SIZES:
        step_us, scorer = measure(series)
        snapshot = len(scorer.to_bytes()) / series
        print(
            f"{series:>8} {step_us:>10.0f} {step_us / series:>10.2f} {scorer.nbytes / series:>10.0f} {snapshot:>10.0f}"
        )


if __name__ == "__main__":
    main()

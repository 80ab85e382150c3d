"""Scored frames for tests of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from operators.kernels.frames import NORMAL, ScoredFrame, WindowFrame

if TYPE_CHECKING:
    from collections.abc import Sequence

END_MS = 1_700_000_060_000


def scored(series: Sequence[tuple[str, str]], *, end_ms: int = END_MS, seed: int = 1) -> ScoredFrame:
    """Make a frame whose numbers depend on the seed; every third series is silent."""
    random = np.random.default_rng(seed)
    rows = len(series)
    count = random.integers(1, 1000, rows)
    count[::3] = 0
    silent = np.where(count > 0, 1.0, np.nan)

    def quantile(scale: float) -> np.ndarray:
        return random.lognormal(10, scale, rows) * silent

    def matrix() -> np.ndarray:
        values = random.lognormal(1, 3, (3, rows))
        values[random.random((3, rows)) < 0.2] = np.nan
        return values

    windows = WindowFrame(
        window_start_ms=end_ms - 60_000,
        window_end_ms=end_ms,
        service=[service for service, _ in series],
        endpoint=[endpoint for _, endpoint in series],
        count=count,
        errors=count // 7,
        sum_us=count * 1000,
        max_us=count * 2000,
        p50_us=quantile(1),
        p90_us=quantile(2),
        p99_us=quantile(6),
        carry=None,
    )
    state = np.full(rows, NORMAL, np.int8)
    return ScoredFrame(windows, matrix(), matrix(), matrix(), matrix(), state)


def many(series: int, shards: int) -> list[ScoredFrame]:
    """Make frames of a large deployment, one for each shard."""
    return [
        scored([(f"service-{shard}", f"/api/v1/resource/{n}") for n in range(series // shards)], seed=shard)
        for shard in range(shards)
    ]

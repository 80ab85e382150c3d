"""A small world of windows for the scoring tests: panes of random requests, slid into frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from operators.kernels.frames import WindowFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLIDE_MS = 10_000
LENGTH_MS = 60_000
START_MS = 1_700_000_040_000


@dataclass(frozen=True)
class Incident:
    """What goes wrong with one series between two panes."""

    series: int
    start: int
    end: int
    latency: float = 1.0
    errors: float | None = None
    traffic: float = 1.0
    ramp: int = 0

    def strength(self, pane: int) -> float:
        if not self.start <= pane < self.end:
            return 0.0
        return min(1.0, (pane - self.start + 1) / self.ramp, (self.end - pane) / self.ramp) if self.ramp else 1.0


def make_frame(
    end_ms: int,
    count: NDArray,
    errors: NDArray,
    p99_us: NDArray,
    carry: NDArray | None,
    p90_us: NDArray | None = None,
) -> WindowFrame:
    n = len(count)
    zeros = np.zeros(n, np.int64)
    p99 = np.where(count > 0, p99_us, np.nan)
    p90 = np.where(count > 0, p99_us if p90_us is None else p90_us, np.nan)
    names = [f"series-{row}" for row in range(n)]
    return WindowFrame(end_ms - LENGTH_MS, end_ms, names, [""] * n, count, errors, zeros, zeros, p90, p90, p99, carry)


def make_world(
    rates: list[float], panes: int, incidents: tuple[Incident, ...] = (), seed: int = 1
) -> list[WindowFrame]:
    """Frames of every slide, as a shard emits them; the series live from the first pane on."""
    random = np.random.default_rng(seed)
    n = len(rates)
    base_us = 50_000 * np.exp(random.normal(0, 0.5, n))
    latencies: list[list[NDArray]] = []
    failures = np.zeros((panes, n), np.int64)
    for pane in range(panes):
        row = []
        for series in range(n):
            slow, failing, rate = 1.0, 0.002, rates[series] * SLIDE_MS / 1000
            for incident in incidents:
                if incident.series == series and (strength := incident.strength(pane)):
                    slow *= 1 + (incident.latency - 1) * strength
                    failing = failing if incident.errors is None else incident.errors
                    rate *= 1 + (incident.traffic - 1) * strength
            requests = random.poisson(rate)
            row.append(base_us[series] * slow * np.exp(random.normal(0, 0.4, requests)))
            failures[pane, series] = random.binomial(requests, failing)
        latencies.append(row)
    frames = []
    for pane in range(panes):
        window = range(max(pane - 5, 0), pane + 1)
        samples = [np.sort(np.concatenate([latencies[p][s] for p in window])) for s in range(n)]
        p90, p99 = (
            np.array([x[int(np.ceil(q * len(x))) - 1] if len(x) else np.nan for x in samples]) for q in (0.9, 0.99)
        )
        frames.append(
            make_frame(
                START_MS + (pane + 1) * SLIDE_MS,
                np.array([len(x) for x in samples], np.int64),
                failures[window.start : pane + 1].sum(axis=0),
                p99,
                np.full(n, -1) if pane == 0 else None,
                p90,
            )
        )
    return frames


def rows_of(frame: WindowFrame, rows: NDArray, carry: NDArray | None) -> WindowFrame:
    """Some rows of a frame in another order."""
    arrays = {
        name: getattr(frame, name)[rows]
        for name in ("count", "errors", "sum_us", "max_us", "p50_us", "p90_us", "p99_us")
    }
    service, endpoint = [frame.service[row] for row in rows], [frame.endpoint[row] for row in rows]
    return replace(frame, service=service, endpoint=endpoint, carry=carry, **arrays)

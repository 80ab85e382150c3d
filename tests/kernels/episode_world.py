"""A shard for the tests of episodes: panes of requests and scores in, frames as a window kernel emits them out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from operators.kernels.episodes import EpisodeConfig, Episodes
from operators.kernels.frames import NORMAL, SIGNALS, ScoredFrame, WindowFrame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from operators.kernels.frames import Transition

Series: TypeAlias = tuple[str, str]

START_MS = 1_760_000_000_000
LENGTH_MS = 60_000
SLIDE_MS = 10_000
USUAL_MS, USUAL_RATIO, USUAL_PER_S = 180.0, 0.01, 10.0


class Windows:
    """Keeps the panes of each series, so that windows overlap as they do in the flow."""

    def __init__(self) -> None:
        self._panes: dict[Series, deque[int]] = {}
        self._rows: list[Series] = []

    def frame(
        self,
        end_ms: int,
        requests: Mapping[Series, int],
        scores: Mapping[Series, Sequence[float]],
        *,
        states: Mapping[Series, int] | None = None,
        skipped: int = 0,
        reborn: frozenset[Series] = frozenset(),
    ) -> ScoredFrame:
        """Close the windows at `end_ms`; the keys of `requests` are the rows, in their order."""
        rows = list(requests)
        for series in reborn | (set(self._panes) - set(rows)):
            self._panes.pop(series, None)
        for series, number in requests.items():
            panes = self._panes.setdefault(series, deque(maxlen=LENGTH_MS // SLIDE_MS))
            panes.extend([0] * skipped)
            panes.append(number)
        count = np.array([sum(self._panes[series]) for series in rows], np.int64)
        former = {series: row for row, series in enumerate(self._rows)}
        carry = [-1 if series in reborn else former.get(series, -1) for series in rows]
        unchanged = carry == list(range(len(self._rows))) and bool(rows)
        self._rows = rows
        score = np.array([scores.get(series, (0.0, 0.0, 0.0)) for series in rows], np.float64).reshape(-1, 3).T
        return scored(rows, end_ms, count, score, states or {}, None if unchanged else np.array(carry, np.int64))


def scored(
    rows: list[Series],
    end_ms: int,
    count: NDArray[np.int64],
    score: NDArray[np.float64],
    states: Mapping[Series, int],
    carry: NDArray[np.int64] | None,
) -> ScoredFrame:
    n = len(rows)
    p99_us = np.where(count > 0, np.where(score[0] >= 1, 1_240_000.0, 180_000.0), np.nan)
    errors = np.where(score[1] >= 1, count // 4, 0)
    windows = WindowFrame(
        window_start_ms=end_ms - LENGTH_MS,
        window_end_ms=end_ms,
        service=[service for service, _ in rows],
        endpoint=[endpoint for _, endpoint in rows],
        count=count,
        errors=errors,
        sum_us=count * 90_000,
        max_us=np.where(count > 0, 2_000_000, 0),
        p50_us=p99_us / 2,
        p90_us=p99_us / 1.5,
        p99_us=p99_us,
        carry=carry,
    )
    usual = np.array([[USUAL_MS], [USUAL_RATIO], [USUAL_PER_S]])
    expected = np.broadcast_to(usual, (3, n)).copy()
    lower = expected * np.array([[np.nan], [np.nan], [0.5]])
    upper = expected * np.array([[1.5], [4.0], [2.0]])
    state = np.array([states.get(series, NORMAL) for series in rows], np.int8)
    return ScoredFrame(windows, score, expected, lower, upper, state)


class Shard:
    """Episodes that are fed slide by slide; 100 requests a pane are the usual 10 a second."""

    def __init__(self, *rows: Series, config: EpisodeConfig | None = None) -> None:
        self.rows = rows or (("checkout", "/pay"),)
        self.episodes = Episodes(config or EpisodeConfig())
        self.end_ms = START_MS
        self.seen: list[Transition] = []
        self._windows = Windows()

    def slide(
        self,
        times: int = 1,
        *,
        requests: int | Mapping[Series, int] = 100,
        scores: Mapping[Series, Mapping[str, float]] | None = None,
        states: Mapping[Series, int] | None = None,
        skipped: int = 0,
        **score: float,
    ) -> list[Transition]:
        """Let `times` slides pass; a bare signal is the score of the first series."""
        changes: list[Transition] = []
        given = {**dict.fromkeys(self.rows[:1], score), **(scores or {})}
        values = {series: [of.get(signal, 0.0) for signal in SIGNALS] for series, of in given.items()}
        for _ in range(times):
            self.end_ms += SLIDE_MS * (1 + skipped)
            panes = {series: requests if isinstance(requests, int) else requests[series] for series in self.rows}
            frame = self._windows.frame(self.end_ms, panes, values, states=states, skipped=skipped)
            changes += self.episodes.step(frame)
        self.seen += changes
        return changes


def told(transitions: Sequence[Transition]) -> list[tuple[str, str, str, str]]:
    """What a reader of the alerts topic sees first: status, name, service and endpoint."""
    return [
        (change.status, change.labels["alertname"], change.labels["service"], change.labels["endpoint"])
        for change in transitions
    ]

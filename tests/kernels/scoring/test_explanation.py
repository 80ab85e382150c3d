"""An explanation says what the score says, and names the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from operators.kernels.scoring import Explanation, Scorer, ScoringConfig
from tests.kernels.scoring.window_world import LENGTH_MS, SLIDE_MS, Incident, make_world

if TYPE_CHECKING:
    from operators.kernels.frames import ScoredFrame

INCIDENTS = tuple(
    Incident(s, 40 + 3 * s, 80 + s, latency=1 + s, errors=0.03 * s, traffic=max(1 - 0.2 * s, 0)) for s in range(6)
)
ROWS = list(range(6))


@pytest.fixture(scope="module")
def world() -> list[tuple[ScoredFrame, list[Explanation]]]:
    scorer = Scorer(ScoringConfig(), SLIDE_MS, LENGTH_MS)
    return [
        scorer.step_explained(frame, ROWS) for frame in make_world([1.0, 2.0, 4.0, 8.0, 20.0, 20.0], 120, INCIDENTS)
    ]


def test_explained_step_scores_as_a_plain_one(world: list[tuple[ScoredFrame, list[Explanation]]]) -> None:
    plain = Scorer(ScoringConfig(), SLIDE_MS, LENGTH_MS)
    for frame, (scored, told) in zip(make_world([1.0, 2.0, 4.0, 8.0, 20.0, 20.0], 120, INCIDENTS), world, strict=True):
        expected = plain.step(frame)
        np.testing.assert_array_equal(scored.score, expected.score)
        assert [[signal.score for signal in one.signals] for one in told] == expected.score.T.tolist()


def test_anomalous_is_what_is_improbable_and_past_its_gates_in_one_direction(
    world: list[tuple[ScoredFrame, list[Explanation]]],
) -> None:
    anomalies = 0
    for _, told in world:
        for signal in (signal for one in told for signal in one.signals if signal.channels and not signal.warming):
            by_reason = any(
                any(reading.surprise >= reading.threshold for reading in signal.channels if reading.direction == way)
                and all(gate.passed for gate in signal.gates if gate.direction == way)
                for way in ("up", "down")
            )
            assert by_reason == (signal.score >= 1), signal
            anomalies += by_reason
    assert anomalies > 100


def test_verdict_names_the_reason(world: list[tuple[ScoredFrame, list[Explanation]]]) -> None:
    told = [one.signals[0] for _, explanations in world for one in explanations]
    verdicts = {signal.verdict for signal in told}
    for part in ("too few requests", "is warming", "outside its band", "inside its band"):
        assert any(part in verdict for verdict in verdicts), part


def test_window_that_reaches_back_before_its_series_is_told_apart(
    world: list[tuple[ScoredFrame, list[Explanation]]],
) -> None:
    assert [told[5].whole for _, told in world[:8]] == [False] * 5 + [True] * 3
    assert world[20][1][5].state == "warming"


def test_gate_that_holds_an_improbable_value_back_is_named() -> None:
    scorer = Scorer(ScoringConfig(latency_min_ms=100_000), SLIDE_MS, LENGTH_MS)
    frames = make_world([20.0], 60, (Incident(0, 50, 60, latency=4),))
    told = [scorer.step_explained(frame, [0])[1][0].signals[0] for frame in frames]
    assert "improbable" in told[58].verdict
    assert told[58].verdict.endswith("held back by latency_min_ms")
    assert [gate.name for gate in told[58].gates if not gate.passed] == ["latency_min_ms"]

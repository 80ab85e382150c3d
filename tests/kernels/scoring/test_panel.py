"""Detectors for chosen series: each keeps the laws, and watches those that it was chosen for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from operators.kernels.codec import pack, unpack
from operators.kernels.frames import ANOMALOUS, NORMAL, WARMING
from operators.kernels.scoring import Scorer, ScoringConfig, laws
from operators.kernels.scoring.novelty import Novelty
from operators.kernels.scoring.panel import DetectorSpec, PanelConfig
from operators.kernels.scoring.rules import BurnRate, Limits
from tests.kernels.scoring.window_world import LENGTH_MS, SLIDE_MS, START_MS, Incident, make_frame, make_world

if TYPE_CHECKING:
    from collections.abc import Callable

    from operators.kernels.frames import ScoredFrame, WindowFrame

LATENCY, ERRORS, TRAFFIC = range(3)
OURS = {
    "limits": (Limits, {"latency_ms": 300, "errors_ratio": 0.1, "traffic_min_per_s": 1, "traffic_max_per_s": 1e4}),
    "burn rate": (BurnRate, {"objective": 0.99, "windows": ((600_000, 120_000, 5.0),)}),
    "novelty": (Novelty, {"memory_windows": 50}),
}


@pytest.mark.parametrize("check_law", laws.CHECKS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", OURS)
def test_detector_of_ours_keeps_the_laws(name: str, check_law: Callable[..., None]) -> None:
    factory, options = OURS[name]
    check_law(factory, **options)


class Forgetful(Limits):
    """Breaks the laws, one at a time."""

    def __init__(self, span: Any, state: bytes | None = None, *, broken: str) -> None:
        super().__init__(span, None, latency_ms=300)
        self._broken, self._steps, self._seen = broken, 0 if state is None else len(state), 0.0

    def step(self, frame: WindowFrame) -> Any:
        opinion = super().step(frame)
        self._steps += 1
        if self._broken == "neighbours" and len(frame.count):
            opinion.score[LATENCY] = frame.count.mean()
        elif self._broken == "state":
            opinion.score[LATENCY] = self._steps
        elif self._broken == "infinity":
            opinion.score[LATENCY] = np.inf
        elif self._broken == "frame":
            frame.count[:] = 0
        elif self._broken == "band":
            opinion.score[LATENCY] = 0
        return opinion


@pytest.mark.parametrize(
    ("broken", "check", "law"),
    [
        ("neighbours", laws.check_series_are_judged_by_themselves, "neighbours"),
        ("state", laws.check_resumed_detector_goes_on_as_if_it_had_not_stopped, "go on"),
        ("infinity", laws.check_opinions_have_their_shape_and_no_infinities, "finite"),
        ("frame", laws.check_frames_are_left_as_they_are, "must stay"),
        ("band", laws.check_value_outside_its_band_is_anomalous, "outside its band"),
        ("anything", laws.check_state_of_something_else_is_refused, "StateError"),
        ("state", laws.check_state_follows_its_series, "start from nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_check_finds_the_detector_that_breaks_its_law(broken: str, check: Callable[..., None], law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check(Forgetful, broken=broken)


def spec(name: str, factory: Any, *, gated: bool = False, **options: Any) -> DetectorSpec:
    return DetectorSpec(name, lambda span, state: factory(span, state, **options), f"{name} {options}", gated)


def config(*specs: DetectorSpec, **choices: tuple[str, ...]) -> ScoringConfig:
    return ScoringConfig(panel=PanelConfig(specs, tuple(choices.items())))


def run(frames: list[WindowFrame], settings: ScoringConfig) -> list[ScoredFrame]:
    scorer = Scorer(settings, SLIDE_MS, LENGTH_MS)
    return [scorer.step(frame) for frame in frames]


TIGHT = spec("tight", Limits, latency_ms=1)
LOOSE = spec("loose", Limits, latency_ms=1e9)


def test_chosen_series_alone_are_watched() -> None:
    frames = make_world([20.0, 20.0], 40)
    scored = run(frames, config(TIGHT, **{"series-1|*": ("tight",)}))
    assert (np.array([frame.score[LATENCY] for frame in scored])[10:] >= 1).all(axis=0).tolist() == [False, True]
    assert [frame.state.tolist() for frame in scored][10] == [WARMING, ANOMALOUS]


def test_most_specific_pattern_decides() -> None:
    chosen = PanelConfig((TIGHT, LOOSE), (("*", ("tight",)), ("series-1|*", ("loose",)), ("series-?|", ("default",))))
    assert chosen.names_for("series-1", "/pay") == ("loose",)
    assert chosen.names_for("series-2", "") == ("default",)
    assert chosen.names_for("other", "") == ("tight",)
    assert PanelConfig().names_for("other", "") == ("default",)


def test_default_that_was_not_chosen_has_no_say_but_goes_on_learning() -> None:
    frames = make_world([20.0], 120, (Incident(0, 100, 120, latency=8),))
    without = run(frames, config(LOOSE, **{"*": ("loose",)}))
    assert max(frame.score[LATENCY, 0] for frame in without) < 1
    assert without[-1].state[0] == NORMAL
    both = run(frames, config(LOOSE, **{"*": ("default", "loose")}))
    plain = run(frames, ScoringConfig())
    np.testing.assert_allclose([f.score for f in both], [f.score for f in plain], atol=1e-6)


def test_bands_are_the_narrowest_of_all_detectors() -> None:
    frames = make_world([20.0], 60)
    both = run(frames, config(spec("limit", Limits, latency_ms=150), **{"*": ("default", "limit")}))
    plain = run(frames, ScoringConfig())
    assert both[50].upper[LATENCY, 0] == min(plain[50].upper[LATENCY, 0], 150)
    assert both[10].upper[LATENCY, 0] == 150, "a limit needs no warm-up"
    assert both[50].by_rule is not None


def test_limit_of_traffic_holds_in_both_directions() -> None:
    limits = config(spec("limit", Limits, traffic_min_per_s=5, traffic_max_per_s=50), **{"*": ("limit",)})
    counts = [600, 300, 299, 0, 3000, 3001, 6000]
    frames = [
        make_frame(
            START_MS + n * SLIDE_MS, np.array([c]), np.array([0]), np.array([1e5]), np.array([-1]) if n == 0 else None
        )
        for n, c in enumerate(counts)
    ]
    found = [frame.score[TRAFFIC, 0] for frame in run(frames, limits)]
    assert [score >= 1 for score in found] == [False, False, True, True, False, True, True]
    assert found[-1] == pytest.approx(2)


def burning(ratios: list[float]) -> list[float]:
    """Scores of an objective of 99% over windows with these error ratios, 600 requests each."""
    slo = config(spec("slo", BurnRate, objective=0.99, windows=((600_000, 120_000, 5.0),)), **{"*": ("slo",)})
    frames = [
        make_frame(
            START_MS + n * SLIDE_MS,
            np.array([600]),
            np.array([round(600 * ratio)]),
            np.array([1e5]),
            np.array([-1]) if n == 0 else None,
        )
        for n, ratio in enumerate(ratios)
    ]
    return [float(frame.score[ERRORS, 0]) for frame in run(frames, slo)]


def test_budget_that_burns_in_both_windows_is_anomalous_and_in_one_of_them_is_not() -> None:
    steady = burning([0.01] * 100)
    assert steady[-1] == pytest.approx(1 / 5, rel=1e-6)
    lasting = burning([0.0] * 60 + [0.2] * 40)
    assert lasting[64] < 1, "the long window has not seen enough yet"
    assert max(lasting[80:]) >= 1
    over = burning([0.0] * 60 + [0.2] * 40 + [0.0] * 30)
    assert over[-1] < 1, "the short window says that it is over"


def test_new_pattern_counts_only_behind_the_gates() -> None:
    novelty = partial(spec, "knn", Novelty, memory_windows=60)
    frames = make_world([20.0], 700, (Incident(0, 600, 640, latency=1.4),))
    gated = run(frames, config(novelty(gated=True), **{"*": ("knn",)}))
    free = run(frames, config(novelty(), **{"*": ("knn",)}))
    assert max(frame.score[LATENCY, 0] for frame in gated[600:640]) < 1
    assert max(frame.score[LATENCY, 0] for frame in free[600:640]) >= max(
        frame.score[LATENCY, 0] for frame in gated[600:640]
    )


def chosen_for_all() -> ScoringConfig:
    specs = [
        spec("slo", BurnRate, objective=0.99, windows=((600_000, 120_000, 5.0),)),
        spec("knn", Novelty, memory_windows=50, gated=True),
    ]
    return config(*specs, **{"series-1|*": ("slo",), "series-[02]|": ("default", "knn")})


@pytest.mark.parametrize("stop", [0, 1, 40, 99])
def test_resumed_panel_goes_on_as_if_it_had_not_stopped(stop: int) -> None:
    frames = make_world([5.0, 20.0, 40.0], 100, (Incident(1, 50, 80, errors=0.4),))
    straight = run(frames, chosen_for_all())
    first = Scorer(chosen_for_all(), SLIDE_MS, LENGTH_MS)
    before = [first.step(frame) for frame in frames[:stop]]
    resumed = Scorer.from_bytes(chosen_for_all(), SLIDE_MS, LENGTH_MS, first.to_bytes())
    after = before + [resumed.step(frame) for frame in frames[stop:]]
    for one, other in zip(straight, after, strict=True):
        np.testing.assert_array_equal(one.score, other.score)
        np.testing.assert_array_equal(one.state, other.state)


def test_state_follows_its_series_when_rows_move() -> None:
    frames = make_world([5.0, 20.0, 40.0], 100, (Incident(1, 50, 80, errors=0.4),))
    straight = run(frames, chosen_for_all())
    order = np.array([2, 1])
    scorer = Scorer(chosen_for_all(), SLIDE_MS, LENGTH_MS)
    for frame in frames[:60]:
        scorer.step(frame)
    for number, frame in enumerate(frames[60:]):
        arrays = {name: getattr(frame, name)[order] for name in laws._COLUMNS}
        names = [frame.service[row] for row in order]
        moved = replace(frame, service=names, endpoint=["", ""], carry=order if number == 0 else None, **arrays)
        np.testing.assert_array_equal(scorer.step(moved).score, straight[60 + number].score[:, order])


def test_detector_whose_options_changed_begins_anew_and_others_go_on() -> None:
    frames = make_world([20.0], 60)
    first = Scorer(config(TIGHT, **{"*": ("tight",)}), SLIDE_MS, LENGTH_MS)
    for frame in frames[:40]:
        first.step(frame)
    other = config(spec("slo", BurnRate, objective=0.9), **{"*": ("default", "slo")})
    resumed = Scorer.from_bytes(other, SLIDE_MS, LENGTH_MS, first.to_bytes())
    plain = run(frames, ScoringConfig())
    np.testing.assert_array_equal(resumed.step(frames[40]).upper[LATENCY], plain[40].upper[LATENCY])


def test_state_of_the_first_release_is_read() -> None:
    frames = make_world([20.0], 60)
    scorer = Scorer(ScoringConfig(), SLIDE_MS, LENGTH_MS)
    for frame in frames[:40]:
        scorer.step(frame)
    _, values, arrays = unpack("scorer", (2,), scorer.to_bytes())
    old = pack("scorer", 1, {"detector": values["detector"]}, arrays)
    resumed = Scorer.from_bytes(ScoringConfig(), SLIDE_MS, LENGTH_MS, old)
    np.testing.assert_array_equal(resumed.step(frames[40]).score, scorer.step(frames[40]).score)


@pytest.mark.parametrize(
    ("factory", "options", "rule"),
    [
        (Limits, {}, "needs a positive"),
        (Limits, {"latency_ms": 0}, "needs a positive"),
        (BurnRate, {"objective": 1}, "`objective`"),
        (BurnRate, {"objective": 0.9, "windows": ((60_000, 60_000, 1.0),)}, "`windows`"),
        (Novelty, {"memory_windows": 3}, "`memory_windows`"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_impossible_option_is_refused_with_its_rule(factory: Any, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        factory(laws.SPAN, None, **options)


def test_series_can_not_be_given_a_detector_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="`series` must give"):
        PanelConfig((), (("*", ("nobody",)),))

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.kernels.encode import alert_records
from operators.kernels.episodes import EpisodeConfig, Episodes
from operators.kernels.frames import NORMAL, WARMING
from tests.kernels.episode_world import SLIDE_MS, START_MS, Series, Windows

if TYPE_CHECKING:
    from operators.kernels.frames import ScoredFrame, Transition

CONFIG = EpisodeConfig(
    quiet_ms=70_000,
    unknown_hold_ms=30_000,
    flap_quiet_ms=100_000,
    flap_opens=2,
    flap_horizon_ms=900_000,
    silence_warmup_gaps=3,
)
EAGER = EpisodeConfig(open_windows=1, open_within_windows=1, silence_warmup_gaps=1, silence_floor_ms=10_000)
WORLD: tuple[Series, ...] = (("a", ""), ("a", "/x"), ("b", "/x"), ("c", "/y"))
SCORES = (0.0, 0.0, 0.0, 0.5, 0.8, 1.2, 2.5, math.nan)


@dataclass(frozen=True)
class Moment:
    """What happens to the world in one slide."""

    skipped: int
    requests: dict[Series, int]
    scores: dict[Series, tuple[float, ...]]
    states: dict[Series, int]
    reborn: frozenset[Series]


@st.composite
def histories(draw: st.DrawFn) -> list[Moment]:
    """Moods that last some slides, so that episodes get the time to open, calm down and flap."""
    history: list[Moment] = []
    for _ in range(draw(st.integers(1, 10))):
        alive = draw(st.sets(st.sampled_from(WORLD), min_size=draw(st.sampled_from([0, 2, 4]))))
        rows = [series for series in WORLD if series in alive]
        scores = {series: tuple(draw(st.sampled_from(SCORES)) for _ in range(3)) for series in rows}
        requests = {series: draw(st.sampled_from([0, 3, 3])) for series in rows}
        states = {series: draw(st.sampled_from([WARMING, NORMAL, NORMAL])) for series in rows}
        reborn = frozenset(draw(st.sets(st.sampled_from(WORLD), max_size=1))) & alive
        skipped = draw(st.sampled_from([0, 0, 0, 1, 9]))
        for slide in range(draw(st.integers(1, 12))):
            first = slide == 0
            history.append(Moment(skipped * first, requests, scores, states, reborn if first else frozenset()))
    return history


def frames(history: list[Moment], *, services: str = "abc", seed: int | None = None) -> list[ScoredFrame]:
    """The frames of a shard that holds `services`; a seed shuffles the rows anew in every frame."""
    windows, end_ms, shuffle = Windows(), START_MS, np.random.default_rng(seed)
    made = []
    for moment in history:
        end_ms += SLIDE_MS * (1 + moment.skipped)
        rows = [series for series in moment.requests if series[0] in services]
        if seed is not None:
            rows = [rows[place] for place in shuffle.permutation(len(rows))]
        requests = {series: moment.requests[series] for series in rows}
        reborn = moment.reborn & set(rows)
        made.append(
            windows.frame(end_ms, requests, moment.scores, states=moment.states, skipped=moment.skipped, reborn=reborn)
        )
    return made


def run(history: list[ScoredFrame], config: EpisodeConfig = CONFIG) -> list[list[Transition]]:
    episodes = Episodes(config)
    return [episodes.step(frame) for frame in history]


def wire(steps: list[list[Transition]]) -> list[list[bytes | None]]:
    """Transitions as their bytes: comparable, although an unknown number equals nothing."""
    return [alert_records(step).values for step in steps]


@given(histories(), st.sampled_from([CONFIG, EAGER]))
@settings(max_examples=60)
def test_an_episode_is_exactly_one_firing_and_then_one_resolved(history: list[Moment], config: EpisodeConfig) -> None:
    open_now: dict[str, Transition] = {}
    told: set[tuple[str, int, str]] = set()
    for change in [change for step in run(frames(history), config) for change in step]:
        identity = (change.fingerprint, change.starts_at_ms, change.status)
        assert identity not in told
        told.add(identity)
        if change.status == "firing":
            assert change.fingerprint not in open_now
            assert change.ends_at_ms is None
            assert change.starts_at_ms <= change.window_end_ms
            open_now[change.fingerprint] = change
        else:
            firing = open_now.pop(change.fingerprint)
            assert (firing.starts_at_ms, firing.labels) == (change.starts_at_ms, change.labels)
            assert (firing.signal, firing.flapping) == (change.signal, change.flapping)
            assert change.ends_at_ms == change.window_end_ms > change.starts_at_ms


@given(histories())
@settings(max_examples=60)
def test_no_name_service_and_endpoint_has_two_open_episodes_and_firing_lists_them(history: list[Moment]) -> None:
    episodes, open_now = Episodes(EAGER), {}
    for frame in frames(history):
        for change in episodes.step(frame):
            name = (change.labels["service"], change.labels["endpoint"], change.labels["alertname"])
            if change.status == "firing":
                assert name not in open_now
                open_now[name] = change
            else:
                del open_now[name]
        assert episodes.firing() == [open_now[name] for name in sorted(open_now)]


@given(histories(), st.data())
@settings(max_examples=60)
def test_a_resumed_shard_tells_what_an_undisturbed_one_tells(history: list[Moment], data: st.DataObject) -> None:
    made = frames(history)
    cut = data.draw(st.integers(0, len(made)))
    before, after = Episodes(CONFIG), made[cut:]
    told = [before.step(frame) for frame in made[:cut]]
    resumed = Episodes.from_bytes(CONFIG, before.to_bytes())
    assert resumed.firing() == before.firing()
    assert resumed.to_bytes() == before.to_bytes()
    assert wire(told + [resumed.step(frame) for frame in after]) == wire(run(made))


@given(histories())
@settings(max_examples=60)
def test_a_service_is_told_the_same_alone_and_beside_others(history: list[Moment]) -> None:
    together = wire(run(frames(history)))
    apart = [wire(run(frames(history, services=service))) for service in "abc"]
    assert [sorted(step) for step in together] == [
        sorted(value for part in parts for value in part) for parts in zip(*apart, strict=True)
    ]


@given(histories(), st.integers(0, 2**32))
@settings(max_examples=60)
def test_the_order_of_rows_changes_nothing(history: list[Moment], seed: int) -> None:
    assert wire(run(frames(history, seed=seed))) == wire(run(frames(history)))


@given(histories())
@settings(max_examples=30)
def test_nothing_stays_open_when_all_is_calm_or_gone(history: list[Moment]) -> None:
    episodes, windows = Episodes(CONFIG), frames(history)
    for frame in windows:
        episodes.step(frame)
    end_ms = windows[-1].windows.window_end_ms + SLIDE_MS
    episodes.step(Windows().frame(end_ms, {}, {}))
    assert episodes.firing() == []


@given(histories())
@settings(max_examples=30)
def test_a_shard_that_only_ever_warmed_up_tells_nothing(history: list[Moment]) -> None:
    warming = [
        Moment(moment.skipped, moment.requests, moment.scores, dict.fromkeys(moment.states, WARMING), moment.reborn)
        for moment in history
    ]
    assert not any(run(frames(warming), EAGER))


@given(histories())
@settings(max_examples=30)
def test_memory_is_bounded_by_the_live_series_and_the_policy(history: list[Moment]) -> None:
    episodes = Episodes(EAGER)
    for frame in frames(history):
        episodes.step(frame)
        live = len(frame.windows.service)
        assert len(episodes._tracks) <= 4 * live
        for track in episodes._tracks.values():
            assert len(track.evidence) <= EAGER.open_within_windows
            assert len(track.opened_ms) <= EAGER.flap_opens

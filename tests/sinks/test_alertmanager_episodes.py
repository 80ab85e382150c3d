"""Which alerts are told: from records of both topics, in any order in which the two may come."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.encode import AlertRecord
from sinks.alertmanager_episodes import (
    CLOSED,
    FIRING,
    LOOKBACK_MS,
    OPEN_FOR_MS,
    RESOLVED,
    RESOLVED_FOR_MS,
    SETTLED_AFTER_EPOCHS,
    TOMBSTONE_WAIT_MS,
    AlertEpisodes,
    EpisodeId,
    Standing,
    Told,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOW_MS = 1_764_547_200_000
HORIZON_MS = 240_000
MAX_AGE_MS = 300_000


def transition(
    status: str = "firing", *, name: str = "a", starts_at_ms: int = NOW_MS - 20_000, **changes: Any
) -> AlertRecord:
    fields: dict[str, Any] = {
        "schema": "alert/1",
        "fingerprint": name,
        "status": status,
        "labels": {"alertname": "LatencyAnomaly", "service": name, "endpoint": "", "severity": "warning"},
        "annotations": {"summary": f"{name} {status}", "dashboard_url": "http://localhost:3000/d/x"},
        "starts_at_ms": starts_at_ms,
        "ends_at_ms": None if status == "firing" else starts_at_ms + 10_000,
        "window_end_ms": starts_at_ms if status == "firing" else starts_at_ms + 10_000,
        "signal": "latency",
        "value": 1.0,
        "expected": 1.0,
        "score": 2.0,
        "flapping": False,
    }
    return AlertRecord(**(fields | changes))


def live() -> AlertEpisodes:
    return AlertEpisodes(max_age_ms=MAX_AGE_MS)


def told(
    episodes: AlertEpisodes, now_ms: int = NOW_MS, *, behind: bool | None = False, epochs: float = 0
) -> list[Told]:
    return episodes.told(now_ms, horizon_ms=HORIZON_MS, standing=Standing(behind, epochs))


def ms(text: str) -> int:
    assert text.endswith("Z")
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


def test_firing_alert_lives_until_the_horizon_and_keeps_its_start() -> None:
    episodes = live()
    episodes.take(transition(), NOW_MS, past=False)
    for now_ms in (NOW_MS, NOW_MS + 60_000):
        [alert] = told(episodes, now_ms)
        assert alert.stage == FIRING
        assert ms(alert.body["startsAt"]) == NOW_MS - 20_000
        assert ms(alert.body["endsAt"]) == now_ms + HORIZON_MS
    assert alert.body["generatorURL"] == "http://localhost:3000/d/x"


def test_labels_have_no_empty_value_and_annotations_say_when_it_flaps() -> None:
    episodes = live()
    episodes.take(transition(flapping=True), NOW_MS, past=False)
    [alert] = told(episodes)
    assert alert.body["labels"] == {"alertname": "LatencyAnomaly", "service": "a", "severity": "warning"}
    assert alert.body["annotations"]["flapping"] == "true"


def test_resolved_alert_is_told_for_five_minutes_and_then_forgotten() -> None:
    episodes = live()
    episodes.take(transition(), NOW_MS, past=False)
    told(episodes)
    episodes.take(transition("resolved"), NOW_MS, past=False)
    [alert] = told(episodes, NOW_MS + RESOLVED_FOR_MS)
    assert alert.stage == RESOLVED
    assert ms(alert.body["endsAt"]) == NOW_MS - 10_000
    assert alert.body["annotations"]["summary"] == "a resolved"
    assert told(episodes, NOW_MS + RESOLVED_FOR_MS + 1) == []
    assert told(episodes, NOW_MS + LOOKBACK_MS + 1) == []
    assert episodes._known == {}


def test_end_is_neither_after_now_nor_before_the_start() -> None:
    episodes = live()
    episodes.take(transition(starts_at_ms=NOW_MS - 5_000), NOW_MS, past=False)
    episodes.take(transition(name="b", starts_at_ms=NOW_MS + 5_000), NOW_MS, past=False)
    told(episodes)
    episodes.take(transition("resolved", starts_at_ms=NOW_MS - 5_000), NOW_MS, past=False)
    episodes.take(transition("resolved", name="b", starts_at_ms=NOW_MS + 5_000), NOW_MS, past=False)
    ends = {alert.episode.fingerprint: ms(alert.body["endsAt"]) for alert in told(episodes)}
    assert ends == {"a": NOW_MS, "b": NOW_MS + 5_000}


def test_tombstone_alone_ends_an_episode_after_a_moment() -> None:
    episodes = live()
    episodes.take(transition(), NOW_MS, past=False)
    told(episodes)
    episodes.close(EpisodeId("a", NOW_MS - 20_000), NOW_MS, past=False)
    assert told(episodes) == []
    [alert] = told(episodes, NOW_MS + TOMBSTONE_WAIT_MS)
    assert alert.stage == CLOSED
    assert ms(alert.body["endsAt"]) == NOW_MS
    assert episodes.open() == 0


def test_resolving_record_says_more_than_the_tombstone_before_it() -> None:
    episodes = live()
    episodes.take(transition(), NOW_MS, past=False)
    told(episodes)
    episodes.close(EpisodeId("a", NOW_MS - 20_000), NOW_MS, past=False)
    episodes.take(transition("resolved"), NOW_MS, past=False)
    assert [alert.stage for alert in told(episodes)] == [RESOLVED]


def test_tombstone_of_an_earlier_episode_leaves_the_next_one_open() -> None:
    episodes = live()
    episodes.take(transition(starts_at_ms=NOW_MS - 200_000), NOW_MS, past=False)
    told(episodes)
    episodes.take(transition("resolved", starts_at_ms=NOW_MS - 200_000), NOW_MS, past=False)
    episodes.take(transition(), NOW_MS, past=False)
    episodes.close(EpisodeId("a", NOW_MS - 200_000), NOW_MS, past=False)
    assert {alert.episode.starts_at_ms: alert.stage for alert in told(episodes)} == {NOW_MS - 20_000: FIRING}


def test_end_of_an_episode_is_not_told_again_once_the_next_one_with_its_labels_is_open() -> None:
    episodes = live()
    episodes.take(transition(starts_at_ms=NOW_MS - 200_000), NOW_MS, past=False)
    told(episodes)
    episodes.take(transition("resolved", starts_at_ms=NOW_MS - 200_000), NOW_MS, past=False)
    assert [alert.stage for alert in told(episodes)] == [RESOLVED]
    episodes.take(transition(), NOW_MS, past=False)
    [alert] = told(episodes, NOW_MS + 60_000)
    assert alert.stage == FIRING, "to Alertmanager both are one alert"
    assert ms(alert.body["startsAt"]) == NOW_MS - 20_000
    episodes.close(EpisodeId("a", NOW_MS - 20_000), NOW_MS + 60_000, past=False)
    assert told(episodes, NOW_MS + 60_000) == []


def test_alert_of_long_ago_waits_until_what_was_read_with_it_is_through_the_flow() -> None:
    episodes = live()
    episodes.take(transition(starts_at_ms=NOW_MS - MAX_AGE_MS - 1), NOW_MS, past=False)
    episodes.take(transition(name="b", starts_at_ms=NOW_MS - MAX_AGE_MS), NOW_MS, past=False)

    def fingerprints(*, behind: bool | None, epochs: float) -> list[str]:
        return sorted(alert.episode.fingerprint for alert in told(episodes, behind=behind, epochs=epochs))

    enough = 10 + SETTLED_AFTER_EPOCHS
    assert fingerprints(behind=False, epochs=10) == ["b"]
    assert episodes.held == 1
    assert fingerprints(behind=False, epochs=enough - 1) == ["b"]
    assert fingerprints(behind=None, epochs=enough) == ["b"]
    assert fingerprints(behind=True, epochs=enough) == ["b"]
    assert fingerprints(behind=False, epochs=enough) == ["a", "b"]
    assert episodes.held == 0


@pytest.mark.parametrize("age_ms", [0, 2 * MAX_AGE_MS])
def test_alert_that_was_told_once_is_never_held_again(age_ms: int) -> None:
    episodes = live()
    episodes.take(transition(starts_at_ms=NOW_MS - age_ms), NOW_MS, past=False)
    told(episodes)
    for passed_ms in (0, MAX_AGE_MS, 2 * MAX_AGE_MS):
        assert len(told(episodes, NOW_MS + passed_ms, epochs=SETTLED_AFTER_EPOCHS)) == 1
        assert len(told(episodes, NOW_MS + passed_ms, behind=True, epochs=SETTLED_AFTER_EPOCHS)) == 1


def test_alert_that_was_over_before_anybody_was_told_is_counted_and_not_told() -> None:
    episodes = live()
    long_ago = NOW_MS - 3_600_000
    episodes.take(transition(starts_at_ms=long_ago), NOW_MS, past=False)
    assert told(episodes, behind=False) == []
    episodes.take(transition("resolved", starts_at_ms=long_ago), NOW_MS, past=False)
    assert told(episodes) == []
    assert told(episodes) == []
    assert episodes.stale == 1


@pytest.mark.parametrize("topics", ["ttss", "tsts", "tsst", "sstt", "stst", "stts"])
def test_alert_that_was_over_is_counted_once_whichever_topic_is_read_first(topics: str) -> None:
    long_ago = NOW_MS - 3_600_000
    firing, resolved = transition(starts_at_ms=long_ago), transition("resolved", starts_at_ms=long_ago)
    steps: dict[str, list[Callable[[AlertEpisodes], None]]] = {
        "t": [lambda a: a.take(firing, NOW_MS, past=False), lambda a: a.take(resolved, NOW_MS, past=False)],
        "s": [
            lambda a: a.take(firing, NOW_MS, past=False),
            lambda a: a.close(EpisodeId("a", long_ago), NOW_MS, past=False),
        ],
    }
    episodes = live()
    for topic in topics:
        steps[topic].pop(0)(episodes)
        assert told(episodes) == []
    assert episodes.stale == 1


def test_what_ended_before_this_process_is_told_again_as_its_predecessor_may_not_have() -> None:
    episodes = live()
    episodes.take(transition(), NOW_MS, past=True)
    episodes.take(transition("resolved"), NOW_MS, past=True)
    assert [alert.stage for alert in told(episodes)] == [RESOLVED]


def test_next_episode_ends_one_whose_end_was_never_written() -> None:
    episodes = live()
    episodes.take(transition(starts_at_ms=NOW_MS - 100_000), NOW_MS, past=False)
    episodes.take(transition(), NOW_MS, past=False)
    assert [alert.episode.starts_at_ms for alert in told(episodes)] == [NOW_MS - 20_000]


def test_episode_that_nobody_will_ever_resolve_is_given_up_after_a_day() -> None:
    episodes = live()
    episodes.take(transition(), NOW_MS, past=False)
    told(episodes)
    assert len(told(episodes, NOW_MS + OPEN_FOR_MS)) == 1
    assert told(episodes, NOW_MS + OPEN_FOR_MS + 1) == []
    assert episodes.open() == 0


@given(st.data())
def test_topics_may_be_read_in_any_interleaving_and_from_the_start_again(data: st.DataObject) -> None:
    starts = [NOW_MS - 60_000, NOW_MS - 40_000, NOW_MS - 20_000]
    done = data.draw(st.integers(0, 6))

    def step(number: int, *, state: bool) -> Callable[[AlertEpisodes], None]:
        start, firing = starts[number // 2], number % 2 == 0
        if firing:
            return lambda episodes: episodes.take(transition(starts_at_ms=start), NOW_MS, past=True)
        if state:
            return lambda episodes: episodes.close(EpisodeId("a", start), NOW_MS, past=True)
        return lambda episodes: episodes.take(transition("resolved", starts_at_ms=start), NOW_MS, past=True)

    topics = [[step(number, state=state) for number in range(done)] for state in (False, True)]
    topics = [steps[: data.draw(st.integers(0, len(steps)))] + steps for steps in topics]
    episodes = AlertEpisodes(max_age_ms=MAX_AGE_MS)
    while any(topics):
        data.draw(st.sampled_from([steps for steps in topics if steps])).pop(0)(episodes)
    expected = {}
    if done:
        expected = {starts[(done - 1) // 2]: FIRING if done % 2 else RESOLVED}
    assert {alert.episode.starts_at_ms: alert.stage for alert in told(episodes)} == expected
    assert episodes.open() == done % 2

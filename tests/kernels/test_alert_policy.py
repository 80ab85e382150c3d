"""What keeps anomalies from becoming pages, and what belongs together: by event time and configuration alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from operators.kernels.codec import pack, unpack
from operators.kernels.episodes import EpisodeConfig, Episodes, Harmless, Maintenance
from operators.kernels.episodes.suppression import LEAST_ALERTS_PER_DAY, Budget, discoveries
from tests.kernels.episode_world import SLIDE_MS, START_MS, USUAL_MS, Shard, told

DAY_MS = 86_400_000
PAY, CART = ("checkout", "/pay"), ("checkout", "/cart")


def at(slides: int) -> int:
    return START_MS + slides * SLIDE_MS


def policy(**changes: Any) -> EpisodeConfig:
    return EpisodeConfig(**changes)


# Maintenance.


def test_nothing_opens_in_maintenance_and_it_is_told_once() -> None:
    shard = Shard(config=policy(maintenance=(Maintenance("checkout|*", at(0), at(20)),)))
    held = []
    for _ in range(20):
        assert shard.slide(latency=3.0) == []
        held += shard.episodes.held_back()
    assert [(one.reason, one.alertname, one.service, one.endpoint) for one in held] == [
        ("maintenance", "LatencyAnomaly", "checkout", "/pay")
    ]


def test_anomaly_that_outlasts_its_maintenance_opens_with_fresh_evidence() -> None:
    shard = Shard(config=policy(maintenance=(Maintenance("*", at(0), at(10)),)))
    shard.slide(10, latency=1.2)
    assert shard.slide(latency=1.2) == []
    (opened,) = shard.slide(latency=1.2)
    assert opened.starts_at_ms == at(11)


def test_maintenance_of_others_changes_nothing() -> None:
    shard = Shard(config=policy(maintenance=(Maintenance("search|*", at(0), at(100)),)))
    assert len(shard.slide(2, latency=1.2)) == 1


def test_alert_that_was_open_before_its_maintenance_is_resolved_in_it() -> None:
    shard = Shard(config=policy(maintenance=(Maintenance("*", at(3), at(100)),)))
    shard.slide(2, latency=3.0)
    assert [change.status for change in shard.slide(40)] == ["resolved"]


def test_silence_in_maintenance_is_held_back_too() -> None:
    shard = Shard(config=policy(maintenance=(Maintenance("checkout|", at(0), at(10_000)),)))
    shard.slide(60)
    assert shard.slide(20, requests=0) == []


def test_maintenance_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="`maintenance` must end"):
        Maintenance("*", 5, 5)


# Feedback.


def harmless(**changes: Any) -> Harmless:
    word = Harmless("LatencyAnomaly", "checkout", "/pay", value=1_240.0, expected=USUAL_MS)
    return replace(word, **changes)


@pytest.mark.parametrize(
    ("word", "opens"),
    [
        (harmless(), False),
        (harmless(value=1_000.0), True),
        (harmless(endpoint="/cart"), True),
        (harmless(alertname="TrafficAnomaly"), True),
        (harmless(until_ms=at(10)), False),
        (harmless(until_ms=at(0)), True),
        (harmless(value=None), False),
    ],
    ids=["as bad", "worse now", "another series", "another signal", "in time", "too late", "any value"],
)
def test_anomaly_no_worse_than_a_harmless_one_opens_nothing(word: Harmless, opens: bool) -> None:  # noqa: FBT001
    """The latency of an anomalous window is 1,240 ms in this world."""
    shard = Shard(config=policy(harmless=(word,)))
    assert bool(shard.slide(2, latency=3.0)) == opens
    if not opens:
        shard.slide(latency=3.0)
        assert shard.episodes.standings(*PAY)[0].held == "feedback"


def test_less_traffic_than_in_a_harmless_fall_opens_an_alert() -> None:
    word = Harmless("TrafficAnomaly", "checkout", "/pay", value=4.0, expected=10.0)
    shard = Shard(config=policy(harmless=(word,)))
    shard.slide(10)
    assert shard.slide(6, requests=50, traffic=3.0) == []
    assert len(shard.slide(6, requests=20, traffic=3.0)) == 1


# The budget.


def test_budget_that_is_kept_asks_for_no_more_than_a_score_of_1() -> None:
    budget = Budget(1.0, most=2.0)
    for number in range(50):
        budget.spend(START_MS + number * DAY_MS // 10)
    assert budget.factor(10, START_MS + 5 * DAY_MS) == pytest.approx(1.0, rel=0.06)
    assert budget.factor(1_000, START_MS + 5 * DAY_MS) == 1.0


def test_score_that_is_needed_rises_with_the_rate_and_falls_again_with_time() -> None:
    budget = Budget(1.0, most=2.0)
    for number in range(20):
        budget.spend(START_MS + number)
    assert budget.factor(10, START_MS + 20) == pytest.approx(2.0)
    assert 1 < budget.factor(10, START_MS + DAY_MS // 2) < 2
    assert budget.factor(10, START_MS + 3 * DAY_MS) == 1.0
    assert Budget(None, most=2.0).factor(1, START_MS) == 1.0


def test_shard_that_has_spent_its_budget_opens_what_is_clear_and_nothing_else() -> None:
    rows = [("service", f"/{number}") for number in range(20)]
    shard = Shard(*rows, config=policy(alerts_per_day=0.001))
    burst = {row: {"errors": 3.0} for row in rows[: int(2 * LEAST_ALERTS_PER_DAY)]}
    assert len(shard.slide(scores=burst)) == len(burst), "what comes in one window is judged by what came before it"
    assert shard.slide(3, scores={rows[-1]: {"latency": 1.5}}) == []
    assert shard.episodes.standings(*rows[-1])[0].held == "budget"
    assert shard.episodes.needed_score() == pytest.approx(2.0, rel=1e-2)
    assert len(shard.slide(scores={rows[-2]: {"latency": 3.0}})) == 1


# Too many at once.


def test_one_anomaly_of_few_series_is_no_chance_and_of_very_many_it_is() -> None:
    one = np.array([1.0])
    assert discoveries(one, tests=1_000, surprise=4.5, ratio=0.1).all()
    assert not discoveries(one, tests=100_000, surprise=4.5, ratio=0.1).any()


def test_many_anomalies_at_once_vouch_for_each_other() -> None:
    score = np.array([1.0] * 40 + [3.0] * 10)
    assert discoveries(score, tests=100_000, surprise=4.5, ratio=0.1).all()
    assert discoveries(score[39:], tests=100_000, surprise=4.5, ratio=0.1).tolist() == [False] + [True] * 10


def test_chance_among_many_series_opens_nothing_and_a_rule_is_no_chance() -> None:
    rows = [(f"service-{number}", "") for number in range(2_000)]
    shard = Shard(*rows)
    shard.slide(2)
    assert shard.slide(3, latency=1.01) == []
    assert [one.reason for one in shard.episodes.held_back()] == []
    assert shard.episodes.standings("service-0", "")[0].held == "discovery"
    assert len(Shard(*rows, config=policy(false_discovery_ratio=1.0)).slide(3, latency=1.01)) == 1


# Incidents.


def test_alert_alone_in_its_incident_says_nothing_of_it() -> None:
    (alone,) = Shard().slide(latency=3.0)
    assert set(alone.annotations) == {"summary", "description", "runbook_url", "dashboard_url"}


def test_alerts_of_a_service_are_one_incident_with_what_moved_first_in_front() -> None:
    shard = Shard(PAY, CART, ("search", "/"))
    (first,) = shard.slide(scores={CART: {"latency": 3.0}})
    second, third = shard.slide(scores={CART: {"latency": 3.0}, PAY: {"latency": 2.5, "errors": 4.0}})
    assert second.annotations["incident"] == third.annotations["incident"]
    assert second.annotations["incident"] == f"{first.fingerprint}-{first.starts_at_ms}"
    since = [line.split(" since ")[0] for line in second.annotations["members"].split("; ")]
    assert since == ["1. LatencyAnomaly of /cart", "2. ErrorRatioAnomaly of /pay", "3. LatencyAnomaly of /pay"]
    (other,) = shard.slide(scores={("search", "/"): {"latency": 3.0}})
    assert "incident" not in other.annotations


def test_incident_keeps_its_name_while_anything_of_it_is_open() -> None:
    shard = Shard(PAY, CART)
    (first,) = shard.slide(scores={CART: {"latency": 3.0}})
    (second,) = shard.slide(scores={PAY: {"latency": 3.0}})
    changes = shard.slide(40, scores={PAY: {"latency": 3.0}})
    assert told(changes) == [("resolved", "LatencyAnomaly", *CART)]
    (third,) = shard.slide(scores={PAY: {"latency": 3.0}, CART: {"errors": 3.0}})
    assert third.annotations["incident"] == second.annotations["incident"]
    assert third.annotations["incident"].startswith(first.fingerprint)
    ends = shard.slide(60)
    assert [change.annotations.get("incident") for change in ends] == [third.annotations["incident"]] * 2


# State.


BUSY = policy(
    alerts_per_day=0.5,
    maintenance=(Maintenance("checkout|/pay", at(20), at(60)),),
    harmless=(Harmless("ErrorRatioAnomaly", *CART, value=0.3, expected=0.01),),
)


def drive(shard: Shard, slides: range) -> list[Any]:
    seen: list[Any] = []
    for number in slides:
        scores = {
            PAY: {"latency": 3.0 if number % 40 in (5, 6, 25) else 0.0},
            CART: {"errors": 1.5 if 10 < number % 30 < 20 else 0.0, "latency": 2.2 if number % 50 == 7 else 0.0},
        }
        seen += [*shard.slide(scores=scores), *shard.episodes.held_back()]
    return seen


@pytest.mark.parametrize("stop", [1, 12, 27, 58, 130])
def test_policy_goes_on_after_a_resume_as_if_it_had_not_stopped(stop: int) -> None:
    straight = drive(Shard(PAY, CART, config=BUSY), range(200))
    shard = Shard(PAY, CART, config=BUSY)
    before = drive(shard, range(stop))
    shard.episodes = Episodes.from_bytes(BUSY, shard.episodes.to_bytes())
    assert before + drive(shard, range(stop, 200)) == straight
    assert {one.reason for one in straight if hasattr(one, "reason")} >= {"maintenance", "feedback"}


def test_state_of_the_first_release_is_read() -> None:
    shard = Shard(PAY, CART)
    drive(shard, range(28))
    _, values, arrays = unpack("episodes", (2,), shard.episodes.to_bytes())
    del values["budget"]
    for _, _, track in values["tracks"]:
        del track["held"], track["incident"]
    resumed = Episodes.from_bytes(EpisodeConfig(), pack("episodes", 1, values, arrays))
    assert resumed.firing() == shard.episodes.firing()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"alerts_per_day": 0.0}, "`alerts_per_day`"),
        ({"false_discovery_ratio": 0.0}, "`false_discovery_ratio`"),
    ],
)
def test_impossible_policy_is_refused(change: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        policy(**change)

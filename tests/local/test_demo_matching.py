"""Incidents explain alerts by service, signal and time, and nothing else does."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from local.demo.matching import Alert, Incident, Verdict, explains, grace_after, judge

GRACE_MS = grace_after(length_ms=60_000, slide_ms=10_000)
STEP = Incident("step", "latency-step", 1_000_000, 1_120_000, ("search",), ("latency",), page=True)
SURGE = Incident("surge", "surge", 2_000_000, 2_200_000, ("search", "cart"), ("traffic",), page=False)
ALERT = Alert("LatencyAnomaly", "search", "/query", "latency", "critical", 1_010_000)


def verdicts(incidents: list[Incident], alerts: list[Alert], now_ms: int) -> dict[str, Verdict]:
    outcomes = judge(incidents, alerts, now_ms=now_ms, grace_ms=GRACE_MS).outcomes
    return {outcome.incident.name: outcome.verdict for outcome in outcomes}


def test_grace_is_the_last_window_with_the_incident_and_two_looks_after_it() -> None:
    assert GRACE_MS == 80_000


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"fired_ms": 1_000_000}, False),  # a window that ends where the incident begins holds nothing of it
        ({"fired_ms": 1_000_001}, True),
        ({"fired_ms": 1_120_000 + GRACE_MS}, True),
        ({"fired_ms": 1_120_000 + GRACE_MS + 1}, False),
        ({"service": "cart"}, False),
        ({"signal": "errors"}, False),
        ({"endpoint": ""}, True),
    ],
)
def test_an_incident_explains_alerts_of_its_service_signal_and_time(
    changes: dict[str, object], *, expected: bool
) -> None:
    assert explains(STEP, replace(ALERT, **changes), grace_ms=GRACE_MS) is expected  # type: ignore[arg-type]


def test_an_incident_of_one_endpoint_explains_that_endpoint_and_the_whole_service() -> None:
    narrow = replace(STEP, endpoints=("/query",))
    assert explains(narrow, ALERT, grace_ms=GRACE_MS)
    assert explains(narrow, replace(ALERT, endpoint=""), grace_ms=GRACE_MS)
    assert not explains(narrow, replace(ALERT, endpoint="/suggest"), grace_ms=GRACE_MS)


def test_an_incident_is_found_by_its_first_alert() -> None:
    later = replace(ALERT, endpoint="/suggest", fired_ms=1_030_000)
    outcome = judge([STEP], [later, ALERT], now_ms=1_050_000, grace_ms=GRACE_MS).outcomes[0]
    assert outcome.verdict is Verdict.FOUND
    assert outcome.after_ms == 10_000
    assert outcome.alerts == (ALERT, later)


def test_an_incident_without_alert_is_open_until_its_grace_is_over_and_then_missed() -> None:
    assert verdicts([STEP], [], 1_120_000 + GRACE_MS - 1) == {"step": Verdict.OPEN}
    assert verdicts([STEP], [], 1_120_000 + GRACE_MS) == {"step": Verdict.MISSED}


@pytest.mark.parametrize(
    ("resolved_ms", "expected"),
    [(None, Verdict.HELD), (1_120_001, Verdict.HELD), (1_120_000, Verdict.MISSED), (1_050_000, Verdict.MISSED)],
)
def test_an_incident_under_an_alert_that_stays_open_is_held(resolved_ms: int | None, expected: Verdict) -> None:
    earlier = replace(STEP, name="earlier", start_ms=900_000, end_ms=960_000)
    alert = replace(ALERT, fired_ms=910_000, resolved_ms=resolved_ms)
    judgement = judge([earlier, STEP], [alert], now_ms=1_500_000, grace_ms=GRACE_MS)
    assert [outcome.verdict for outcome in judgement.outcomes] == [Verdict.FOUND, expected]
    assert judgement.outcomes[1].after_ms is None
    assert judgement.false_alerts == ()


def test_an_open_alert_about_something_else_holds_nothing() -> None:
    for other in ({"service": "cart"}, {"signal": "errors"}):
        alert = replace(ALERT, fired_ms=910_000, **other)
        assert verdicts([STEP], [alert], 1_500_000) == {"step": Verdict.MISSED}


def test_a_new_alert_finds_an_incident_that_another_holds() -> None:
    held = replace(ALERT, fired_ms=910_000)
    fresh = replace(ALERT, endpoint="/suggest")
    outcome = judge([STEP], [held, fresh], now_ms=1_500_000, grace_ms=GRACE_MS).outcomes[0]
    assert (outcome.verdict, outcome.alerts) == (Verdict.FOUND, (fresh,))


def test_an_incident_that_has_not_begun_is_not_judged() -> None:
    judgement = judge([STEP], [], now_ms=1_000_000, grace_ms=GRACE_MS)
    assert judgement.outcomes == ()
    assert judgement.paging == 0


def test_a_surge_without_alert_is_quiet_once_none_can_come() -> None:
    assert verdicts([SURGE], [], 2_200_000) == {"surge": Verdict.OPEN}
    assert verdicts([SURGE], [], 2_200_000 + GRACE_MS) == {"surge": Verdict.QUIET}


def test_an_alert_of_the_surge_is_false_whatever_its_signal() -> None:
    for signal in ("traffic", "latency"):
        paged = replace(ALERT, signal=signal, fired_ms=2_100_000)
        judgement = judge([SURGE], [paged], now_ms=2_300_000, grace_ms=GRACE_MS)
        assert judgement.outcomes[0].verdict is Verdict.PAGED
        assert judgement.false_alerts == (paged,)


def test_an_alert_during_the_surge_that_an_incident_explains_is_not_the_surges() -> None:
    step = replace(STEP, start_ms=2_050_000, end_ms=2_150_000)
    alert = replace(ALERT, fired_ms=2_100_000)
    judgement = judge([SURGE, step], [alert], now_ms=2_500_000, grace_ms=GRACE_MS)
    assert {outcome.incident.name: outcome.verdict for outcome in judgement.outcomes} == {
        "surge": Verdict.QUIET,
        "step": Verdict.FOUND,
    }
    assert judgement.false_alerts == ()


def test_an_alert_that_nothing_explains_is_false() -> None:
    stray = replace(ALERT, service="cart")
    judgement = judge([STEP], [ALERT, stray], now_ms=1_500_000, grace_ms=GRACE_MS)
    assert judgement.false_alerts == (stray,)
    assert judgement.count(Verdict.FOUND) == 1


def test_the_wrong_signal_of_the_right_service_is_false() -> None:
    silence = replace(STEP, kind="silence", signals=("traffic",))
    judgement = judge([silence], [ALERT], now_ms=1_500_000, grace_ms=GRACE_MS)
    assert judgement.false_alerts == (ALERT,)
    assert judgement.count(Verdict.MISSED) == 1


def test_one_alert_can_find_two_incidents_and_is_put_down_to_the_later() -> None:
    second = replace(STEP, name="second", start_ms=1_005_000)
    judgement = judge([second, STEP], [ALERT], now_ms=1_500_000, grace_ms=GRACE_MS)
    assert judgement.count(Verdict.FOUND) == 2
    assert judgement.causes == {ALERT: second}


def test_the_judgement_does_not_depend_on_the_order_of_what_arrives() -> None:
    rng = random.Random(7)
    incidents = [
        replace(STEP, name=f"step-{number}", start_ms=number * 50_000, end_ms=number * 50_000 + 60_000)
        for number in range(20)
    ]
    alerts = [
        replace(ALERT, fired_ms=rng.randrange(1_200_000), service=rng.choice(["search", "cart"])) for _ in range(60)
    ]
    incidents.append(replace(SURGE, start_ms=100_000, end_ms=400_000))
    expected = judge(incidents, alerts, now_ms=1_000_000, grace_ms=GRACE_MS)
    for _ in range(5):
        rng.shuffle(incidents)
        rng.shuffle(alerts)
        assert judge(incidents, alerts, now_ms=1_000_000, grace_ms=GRACE_MS) == expected

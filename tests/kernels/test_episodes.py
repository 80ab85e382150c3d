from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from operators.kernels.codec import StateError
from operators.kernels.episodes import EpisodeConfig, Episodes
from operators.kernels.frames import WARMING
from tests.kernels.episode_world import SLIDE_MS, Shard, Windows, told

PAY = ("checkout", "/pay")
CART = ("checkout", "/cart")
LOGIN = ("users", "/login")


def test_one_very_unlikely_window_opens_at_once_and_is_critical() -> None:
    shard = Shard()
    shard.slide(40)
    [firing] = shard.slide(latency=2.4)
    assert told([firing]) == [("firing", "LatencyAnomaly", "checkout", "/pay")]
    assert firing.labels["severity"] == "critical"
    assert firing.starts_at_ms == firing.window_end_ms == shard.end_ms
    assert (firing.ends_at_ms, firing.flapping, firing.signal) == (None, False, "latency")
    assert (firing.value, firing.expected, firing.score) == (1_240.0, 180.0, 2.4)


def test_one_merely_anomalous_window_opens_nothing() -> None:
    shard = Shard()
    shard.slide(40)
    assert shard.slide(latency=1.9) == []
    assert shard.slide(20) == []


def test_two_of_three_anomalous_windows_open_a_warning_that_starts_at_the_first_of_them() -> None:
    shard = Shard()
    shard.slide(40)
    shard.slide(latency=1.2)
    first_ms = shard.end_ms
    shard.slide()
    [firing] = shard.slide(latency=1.1)
    assert firing.labels["severity"] == "warning"
    assert (firing.starts_at_ms, firing.window_end_ms) == (first_ms, first_ms + 2 * SLIDE_MS)


def test_two_anomalous_windows_further_apart_than_three_open_nothing() -> None:
    shard = Shard()
    for _ in range(8):
        assert shard.slide(latency=1.5) == []
        assert shard.slide(2) == []


def test_skipped_window_ends_age_the_evidence() -> None:
    shard = Shard()
    shard.slide(latency=1.5)
    assert shard.slide(latency=1.5, skipped=3) == []


def test_severity_and_fingerprint_stay_when_a_warning_gets_worse() -> None:
    shard = Shard()
    [firing] = shard.slide(2, latency=1.2)
    assert shard.slide(10, latency=9.0) == []
    [resolved] = shard.slide(20)
    assert resolved.labels == firing.labels
    assert (resolved.fingerprint, resolved.starts_at_ms) == (firing.fingerprint, firing.starts_at_ms)


def test_errors_are_critical_at_a_lower_score_than_latency() -> None:
    shard = Shard()
    changes = shard.slide(2, latency=1.6, errors=1.6)
    severities = {change.labels["alertname"]: change.labels["severity"] for change in changes}
    assert severities == {"ErrorRatioAnomaly": "critical", "LatencyAnomaly": "warning"}


def test_one_spike_is_one_episode_though_six_windows_hold_it() -> None:
    shard = Shard()
    shard.slide(40)
    shard.slide(6, latency=2.5)
    shard.slide(60)
    assert told(shard.seen) == [
        ("firing", "LatencyAnomaly", "checkout", "/pay"),
        ("resolved", "LatencyAnomaly", "checkout", "/pay"),
    ]
    assert shard.seen[1].ends_at_ms == shard.seen[0].starts_at_ms + 5 * SLIDE_MS + EpisodeConfig().quiet_ms


def test_a_step_fires_until_it_is_absorbed_and_then_for_the_quiet_time() -> None:
    shard = Shard()
    shard.slide(200, latency=3.0)
    assert [change.status for change in shard.seen] == ["firing"]
    assert shard.slide(8) == []
    [resolved] = shard.slide()
    assert resolved.ends_at_ms == shard.end_ms


def test_the_end_of_a_slow_drift_is_not_told_while_its_score_hovers_between_close_and_open() -> None:
    shard = Shard()
    shard.slide(2, latency=1.2)
    assert shard.slide(100, latency=0.8) == []
    assert told(shard.slide(9, latency=0.69)) == [("resolved", "LatencyAnomaly", "checkout", "/pay")]


def test_a_quiet_spell_shorter_than_the_quiet_time_keeps_the_episode() -> None:
    shard = Shard()
    shard.slide(2, latency=1.2)
    for _ in range(10):
        assert shard.slide(8) == []
        assert shard.slide(latency=1.0) == []


def test_the_third_opening_within_the_horizon_is_held_as_one_flapping_episode() -> None:
    shard = Shard()
    for _ in range(8):
        shard.slide(2, latency=2.5)
        shard.slide(14)
    assert [(change.status, change.flapping) for change in shard.seen] == [
        ("firing", False),
        ("resolved", False),
        ("firing", False),
        ("resolved", False),
        ("firing", True),
    ]
    assert "keeps coming back" in shard.seen[-1].annotations["description"]
    shard.slide(60)
    assert (shard.seen[-1].status, shard.seen[-1].flapping) == ("resolved", True)


def test_openings_further_apart_than_the_horizon_are_not_flapping() -> None:
    shard = Shard()
    for _ in range(5):
        shard.slide(latency=2.5)
        shard.slide(200)
    assert len(shard.seen) == 10
    assert not any(change.flapping for change in shard.seen)


def test_unknown_scores_hold_an_episode_but_not_for_ever() -> None:
    shard = Shard()
    shard.slide(latency=2.5)
    assert shard.slide(30, latency=math.nan) == []
    [resolved] = shard.slide(9, latency=math.nan)
    assert resolved.status == "resolved"
    assert "not a recovery" in resolved.annotations["description"]


def test_unknown_scores_open_nothing() -> None:
    shard = Shard()
    assert shard.slide(40, latency=math.nan, errors=math.nan, traffic=math.nan) == []


def test_a_warming_series_opens_nothing() -> None:
    shard = Shard()
    assert shard.slide(40, latency=5.0, errors=5.0, traffic=5.0, states={PAY: WARMING}) == []
    assert shard.slide(10, requests=0, states={PAY: WARMING}) == []


def test_more_traffic_than_expected_opens_nothing() -> None:
    shard = Shard()
    shard.slide(40)
    assert shard.slide(60, requests=500, traffic=8.0) == []


def test_more_traffic_than_expected_opens_an_episode_where_the_policy_says_so() -> None:
    shard = Shard(config=EpisodeConfig(traffic_rises_open=True))
    shard.slide(40)
    [firing] = shard.slide(requests=500, traffic=8.0)
    assert "more traffic than usual" in firing.annotations["summary"]


def test_less_traffic_than_expected_opens_an_episode() -> None:
    shard = Shard()
    shard.slide(40)
    [firing] = shard.slide(requests=10, traffic=2.5)
    assert told([firing]) == [("firing", "TrafficAnomaly", "checkout", "/pay")]
    assert firing.value == pytest.approx(510 / 60)


def test_a_series_that_leaves_the_frame_resolves_its_episodes_in_that_step() -> None:
    shard = Shard(PAY, CART)
    shard.slide(2, latency=1.5, errors=1.5)
    shard.rows = (CART,)
    changes = shard.slide()
    assert told(changes) == [
        ("resolved", "ErrorRatioAnomaly", "checkout", "/pay"),
        ("resolved", "LatencyAnomaly", "checkout", "/pay"),
    ]
    assert changes[0].value is None
    assert "not a recovery" in changes[0].annotations["description"]
    assert shard.episodes.firing() == []


def test_the_last_series_that_leaves_a_shard_resolves_its_silence() -> None:
    shard = Shard()
    shard.slide(60)
    shard.slide(20, requests=0)
    shard.rows = ()
    assert told(shard.slide()) == [("resolved", "ServiceSilent", "checkout", "")]
    assert shard.slide(3) == []


def test_a_steady_service_is_silent_after_a_few_empty_panes_while_its_window_still_holds_requests() -> None:
    shard = Shard(PAY, CART)
    shard.slide(60)
    changes = shard.slide(4, requests=0)
    assert told(changes) == [("firing", "ServiceSilent", "checkout", "")]
    assert changes[0].labels["severity"] == "critical"
    assert changes[0].value > 0
    assert changes[0].expected == pytest.approx(20.0)
    assert changes[0].window_end_ms - changes[0].starts_at_ms <= 3 * SLIDE_MS


def test_a_service_that_was_steady_for_hours_is_silent_after_two_empty_panes() -> None:
    shard = Shard()
    shard.slide(800)
    assert shard.slide(requests=0) == []
    assert told(shard.slide(requests=0)) == [("firing", "ServiceSilent", "checkout", "")]


def test_a_sparse_service_is_silent_only_after_proportionally_longer() -> None:
    shard = Shard()
    for _ in range(60):
        shard.slide(requests=3)
        shard.slide(11, requests=0)
    assert shard.seen == []
    shard.slide(40, requests=0)
    [firing] = shard.seen
    assert 2 * 120_000 <= firing.window_end_ms - firing.starts_at_ms <= 4 * 120_000


def test_random_sparse_traffic_is_not_called_silent_in_a_day() -> None:
    shard = Shard()
    draws = np.random.default_rng(20).poisson(0.7, 8_640)
    for number in draws.tolist():
        shard.slide(requests=number)
    assert shard.seen == []


def test_one_endpoint_without_traffic_does_not_silence_its_service() -> None:
    shard = Shard(PAY, CART)
    shard.slide(60)
    assert shard.slide(20, requests={PAY: 0, CART: 100}) == []


def test_a_silence_is_one_page_and_its_endpoints_add_none_though_their_traffic_is_gone() -> None:
    shard = Shard(PAY, CART)
    shard.slide(60)
    gone = {PAY: {"traffic": 6.0}, CART: {"traffic": 6.0}}
    shard.slide(30, requests=0, scores=gone)
    shard.slide(5, scores=gone)
    shard.slide(20)
    assert told(shard.seen) == [
        ("firing", "ServiceSilent", "checkout", ""),
        ("resolved", "ServiceSilent", "checkout", ""),
    ]


def test_traffic_that_falls_but_goes_on_is_told_though_a_pane_was_empty() -> None:
    shard = Shard()
    shard.slide(60)
    assert shard.slide(requests=0, traffic=2.5) == []
    assert told(shard.slide(requests=5, traffic=2.5)) == [("firing", "TrafficAnomaly", "checkout", "/pay")]


def test_an_outage_does_not_teach_a_service_to_be_silent() -> None:
    shard = Shard()
    shard.slide(200)
    for _ in range(3):
        shard.slide(40, requests=0)
        shard.slide(300)
    starts = [change for change in shard.seen if change.status == "firing"]
    assert len(starts) == 3
    assert all(change.window_end_ms - change.starts_at_ms <= 50_000 for change in starts)


def test_a_young_service_is_not_called_silent() -> None:
    shard = Shard()
    shard.slide(20)
    assert shard.slide(60, requests=0) == []


def test_skipped_window_ends_do_not_make_a_steady_service_silent() -> None:
    shard = Shard()
    shard.slide(60)
    shard.slide(skipped=2)
    assert shard.slide(60) == []


def test_a_service_is_still_called_silent_after_skipped_window_ends_once_its_window_is_empty() -> None:
    shard = Shard()
    shard.slide(60)
    shard.slide(skipped=2)
    shard.slide(20)
    assert told(shard.slide(12, requests=0)) == [("firing", "ServiceSilent", "checkout", "")]


def test_transitions_of_a_step_are_sorted_resolves_first() -> None:
    shard = Shard(LOGIN, PAY, CART)
    shard.slide(scores={LOGIN: {"latency": 3.0}})
    shard.slide(8)
    changes = shard.slide(scores={PAY: {"latency": 3.0, "errors": 3.0}, CART: {"errors": 3.0}})
    assert told(changes) == [
        ("resolved", "LatencyAnomaly", "users", "/login"),
        ("firing", "ErrorRatioAnomaly", "checkout", "/cart"),
        ("firing", "ErrorRatioAnomaly", "checkout", "/pay"),
        ("firing", "LatencyAnomaly", "checkout", "/pay"),
    ]


def test_firing_lists_what_is_open_as_it_was_told() -> None:
    shard = Shard(PAY, LOGIN)
    opened = shard.slide(scores={PAY: {"errors": 3.0}, LOGIN: {"latency": 3.0}})
    shard.slide(3)
    assert shard.episodes.firing() == opened
    shard.slide(20)
    assert shard.episodes.firing() == []


def test_annotations_say_what_happened_in_words_with_numbers_and_units() -> None:
    shard = Shard()
    [firing] = shard.slide(latency=2.31)
    assert firing.annotations["summary"] == "checkout /pay is slow: P99 1,240 ms, expected 180 ms"
    assert firing.annotations["description"] == (
        "The P99 latency of checkout /pay was 1,240 ms over the last 1 min (100 requests); expected 180 ms, "
        "normal up to 270 ms. Anomaly score 2.31, where 1 is anomalous."
    )
    [resolved] = shard.slide(20)
    assert resolved.annotations["summary"] == "checkout /pay has normal latency again"
    assert resolved.annotations["description"] == (
        "It has been quiet for 1 min 30 s; now 180 ms. The episode lasted 1 min 30 s."
    )


def test_annotations_of_silence_say_how_long_and_what_was_usual() -> None:
    shard = Shard(PAY, CART)
    shard.slide(800)
    [firing] = shard.slide(2, requests=0)
    assert firing.annotations["summary"] == "checkout is silent: no request for 20 s"
    assert "Usually 10 s or less pass between its requests" in firing.annotations["description"]


def test_url_of_a_whole_service_names_no_endpoint() -> None:
    shard = Shard(PAY, CART)
    shard.slide(800)
    [firing] = shard.slide(2, requests=0)
    assert re.search(r"\?var-service=checkout&from=\d{13}&to=\d{13}$", firing.annotations["dashboard_url"])


def test_urls_are_filled_in_percent_encoded() -> None:
    shard = Shard(("pay & go", "/a?b=ü/{id}"), config=EpisodeConfig(runbook_url="https://wiki/{alertname}?s={service}"))
    [firing] = shard.slide(latency=2.5)
    assert firing.annotations["runbook_url"] == "https://wiki/LatencyAnomaly?s=pay%20%26%20go"
    url = firing.annotations["dashboard_url"]
    assert "var-endpoint=%2Fa%3Fb%3D%C3%BC%2F%7Bid%7D" in url
    assert re.search(r"from=\d{13}&to=\d{13}$", url)


def test_fingerprint_depends_on_every_label_and_is_the_same_for_ever() -> None:
    shard = Shard()
    [firing] = shard.slide(latency=2.5)
    assert firing.fingerprint == "80415111168109ad"
    [other] = Shard(("checkout", "/cart")).slide(latency=2.5)
    assert other.fingerprint != firing.fingerprint
    assert re.fullmatch("[0-9a-f]{16}", other.fingerprint)


def test_a_frame_that_is_not_later_is_refused() -> None:
    episodes, windows = Episodes(EpisodeConfig()), Windows()
    episodes.step(windows.frame(20_000, {PAY: 1}, {}))
    with pytest.raises(ValueError, match="window ends must rise"):
        episodes.step(windows.frame(20_000, {PAY: 1}, {}))


def test_state_with_another_number_of_panes_is_refused() -> None:
    data = Episodes(EpisodeConfig()).to_bytes()
    with pytest.raises(ValueError, match="panes"):
        Episodes.from_bytes(EpisodeConfig(length_ms=30_000), data)


def test_damaged_state_is_refused() -> None:
    with pytest.raises(StateError, match="episodes"):
        Episodes.from_bytes(EpisodeConfig(), b"nonsense")


def test_the_policy_fits_windows_of_any_size() -> None:
    assert EpisodeConfig.for_windows(length_ms=60_000, slide_ms=10_000) == EpisodeConfig()
    for length_ms, slide_ms in ((1, 1), (3_000, 1_000), (3_600_000, 60_000)):
        config = EpisodeConfig.for_windows(length_ms=length_ms, slide_ms=slide_ms)
        assert config.quiet_ms > length_ms
        assert config.silence_floor_ms == 2 * slide_ms


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"slide_ms": 7_000}, "`slide_ms` must be positive and divide `length_ms`"),
        ({"open_windows": 4}, "`open_windows` must be in 1..`open_within_windows`"),
        ({"quiet_ms": 60_000}, "`quiet_ms` must be longer than `length_ms`"),
        ({"silence_floor_ms": 5_000}, "`silence_floor_ms` at least `slide_ms`"),
        ({"close_score": 1.1}, "`close_score` must be above 0 and at most 1"),
        ({"immediate_score": 0.5}, "`immediate_score` must be at least 1"),
        ({"immediate_score": math.nan}, "`immediate_score` must be at least 1"),
        ({"flap_opens": 1}, "`flap_opens` must be at least 2"),
        ({"flap_quiet_ms": 80_000}, "`flap_quiet_ms` at least `quiet_ms`"),
        ({"runbook_url": "docs/runbooks"}, "`runbook_url` must start with http"),
        ({"dashboard_url": "http://x/{pod}"}, "`dashboard_url` may name only"),
        ({"dashboard_url": "http://x/{service"}, "`dashboard_url` must be a template with paired braces"),
        ({"dashboard_url": "http://x/{service.__class__}"}, "`dashboard_url` may name only"),
    ],
)
def test_impossible_policy_is_refused_with_its_rule(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=re.escape(rule)):
        EpisodeConfig(**change)

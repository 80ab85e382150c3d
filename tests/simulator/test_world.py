"""The fake world: its graph, its load, its latencies."""

import math

import numpy as np
import polars as pl
import pytest

from simulator.world import generated, load_factor, shop
from tests.simulator.recording import MINUTE_MS, START_MS, drawn


def test_shop_has_eight_services_and_its_rates_add_up_to_what_was_asked() -> None:
    world = shop(240.0)
    assert len(world.services) == 8
    assert 15 <= len(world) <= 30
    assert world.rate_per_s.sum() == pytest.approx(240.0)
    assert len({(int(s), e) for s, e in zip(world.service, world.endpoint, strict=True)}) == len(world)


def test_a_callee_gets_at_least_the_requests_that_its_caller_makes() -> None:
    world = shop(240.0)
    rate = {
        f"{world.services[service]}|{endpoint}": rate
        for service, endpoint, rate in zip(world.service, world.endpoint, world.rate_per_s, strict=True)
    }
    assert rate["checkout|/orders"] == pytest.approx(rate["gateway|/checkout"])
    assert rate["payments|/charges"] == pytest.approx(rate["checkout|/orders"])
    assert rate["catalog|/products/{id}"] == pytest.approx(rate["gateway|/product"] + rate["search|/query"])


def test_hops_count_calls_from_the_failing_service_up_to_the_edge() -> None:
    hops = shop(240.0).hops("payments")
    assert hops == {"payments": 0, "checkout": 1, "gateway": 2}


def test_load_curve_averages_to_one_and_is_low_at_night() -> None:
    curve = np.array([load_factor(hour * 3_600_000) for hour in range(24)])
    assert curve.mean() == pytest.approx(1.0)
    assert curve.argmin() < 5
    assert curve.min() > 0.5
    assert load_factor(5 * 86_400_000 + 7) == pytest.approx(load_factor(7))


def test_generated_world_has_the_asked_size_and_calls_without_circles() -> None:
    world = generated(200, 50, 10_000.0, seed=3)
    assert len(world) == 10_000
    assert world.rate_per_s.sum() == pytest.approx(10_000.0)
    assert all(caller < callee for callee, callers in world.callers.items() for caller in callers)


@pytest.mark.parametrize(("services", "endpoints"), [(0, 3), (3, 0)])
def test_world_without_series_is_refused(services: int, endpoints: int) -> None:
    with pytest.raises(ValueError, match="at least one service and one endpoint"):
        generated(services, endpoints, 1.0, seed=1)


def test_unknown_service_of_an_incident_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown: \\['nowhere'\\]"):
        shop(1.0).members(["nowhere"])


def test_every_machine_carries_several_services() -> None:
    world = shop(1.0)
    assert all(len(world.services_on(host)) >= 2 for host in range(len(world.hosts)))


def test_main_endpoints_have_enough_requests_in_a_minute_for_a_p99() -> None:
    counts = drawn(shop(240.0), 10 * MINUTE_MS).group_by("series").len()
    assert (counts["len"] >= 3000).sum() > 0.8 * len(counts)


@pytest.fixture(scope="module")
def hour() -> pl.DataFrame:
    """An hour of requests to the shop."""
    return drawn(shop(240.0), 60 * MINUTE_MS)


def test_latencies_have_their_median_their_body_and_a_heavy_tail(hour: pl.DataFrame) -> None:
    world = shop(240.0)
    row = world.endpoint.index("/stock")
    latency_us = hour.filter(pl.col("endpoint") == "/stock")["latency_us"]
    body = np.log(latency_us.to_numpy() / 1000 / world.median_ms[row]) / world.sigma[row]
    assert np.median(body) == pytest.approx(0.0, abs=0.05)
    assert np.percentile(body, 84.13) == pytest.approx(1.0, abs=0.05)
    # Far beyond what the lognormal body alone would ever give, in a few of tens of thousands.
    assert 10 < (body > 6).sum() < len(body) / 300


def test_failing_share_and_statuses_are_those_of_the_world(hour: pl.DataFrame) -> None:
    world = shop(240.0)
    expected = float((world.error_ratio * world.rate_per_s).sum() / world.rate_per_s.sum())
    assert hour["error"].mean() == pytest.approx(expected, rel=0.1)
    assert set(hour["status"].unique()) == {200, 201, 404, 500, 503, 504}


def test_traffic_follows_the_asked_rate_and_the_time_of_day() -> None:
    noon = len(drawn(shop(240.0), 10 * MINUTE_MS))
    night = len(drawn(shop(240.0), 10 * MINUTE_MS, start_ms=START_MS - 8 * 3_600_000))
    expected = 240 * 600 * load_factor(10 * 3_600_000 + 5 * MINUTE_MS)
    assert abs(noon - expected) < 5 * math.sqrt(expected)
    assert night < 0.7 * noon

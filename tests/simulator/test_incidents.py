"""Every kind of incident shows in its signals, on its services, while it runs, and nowhere else."""

from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest

from simulator.incidents import (
    KINDS,
    Cascade,
    ErrorBurst,
    Flap,
    Incident,
    LatencyStep,
    NoisyNeighbour,
    Silence,
    SlowDrift,
    Surge,
    TrafficDrop,
)
from simulator.world import shop
from tests.simulator.recording import MINUTE_MS, START_MS, drawn

WORLD = shop(400.0)
LENGTH_MS = 30 * MINUTE_MS
FIRST_MS = START_MS + 10 * MINUTE_MS
LAST_MS = START_MS + 20 * MINUTE_MS


def happen(incidents: Iterable[Incident]) -> pl.DataFrame:
    """Draw half an hour in which these incidents happen, and mark the ten minutes of them."""
    events = drawn(WORLD, LENGTH_MS, incidents)
    return events.with_columns(during=pl.col("at_ms").is_between(FIRST_MS, LAST_MS, closed="left"))


def over_before(events: pl.DataFrame, statistic: pl.Expr, by: str = "service") -> dict[str, float]:
    """Give, for each service, what a statistic is during the incident relative to the time around it."""
    table = events.group_by(by, "during").agg(value=statistic).pivot("during", index=by, values="value")
    return dict(zip(table[by], (table["true"] / table["false"]).to_list(), strict=True))


P99 = pl.col("latency_us").quantile(0.99, "nearest").cast(pl.Float64)
MEDIAN = pl.col("latency_us").median()
RATE = pl.len().cast(pl.Float64)
ERRORS = pl.col("error").mean()


def window(**changes: object) -> dict[str, object]:
    return {"start_ms": FIRST_MS, "end_ms": LAST_MS, "services": ("search",), **changes}


@pytest.fixture(scope="module")
def calm() -> pl.DataFrame:
    return happen([])


def test_calm_world_is_the_same_throughout(calm: pl.DataFrame) -> None:
    assert all(ratio == pytest.approx(1, abs=0.3) for ratio in over_before(calm, P99).values())
    # Ten minutes of thirty: half of the time around it.
    assert all(ratio == pytest.approx(0.5, abs=0.05) for ratio in over_before(calm, RATE).values())


def test_latency_step_raises_the_p99_of_its_services_during_its_window_and_not_otherwise() -> None:
    ratios = over_before(happen([LatencyStep(**window(factor=4.0))]), P99)  # type: ignore[arg-type]
    assert ratios.pop("search") == pytest.approx(4, rel=0.25)
    assert all(ratio == pytest.approx(1, abs=0.3) for ratio in ratios.values())


def test_latency_step_on_one_endpoint_leaves_its_neighbour_alone() -> None:
    events = happen([LatencyStep(**window(endpoints=("/query",)))])  # type: ignore[arg-type]
    ratios = over_before(events.filter(pl.col("service") == "search"), P99, by="series")
    assert ratios["search|/query"] > 3
    assert ratios["search|/suggest"] < 1.5


def test_slow_drift_grows_evenly() -> None:
    events = happen([SlowDrift(**window(factor=5.0))]).filter((pl.col("service") == "search") & pl.col("during"))  # type: ignore[arg-type]
    minutes = events.group_by(minute=(pl.col("at_ms") - FIRST_MS) // (2 * MINUTE_MS)).agg(MEDIAN).sort("minute")
    medians = minutes["latency_us"].to_list()
    assert medians == sorted(medians)
    assert medians[-1] / medians[0] == pytest.approx(4.6 / 1.4, rel=0.2)


def test_error_burst_fails_its_share_at_the_usual_speed() -> None:
    events = happen([ErrorBurst(**window(error_ratio=0.25))])  # type: ignore[arg-type]
    share = events.filter((pl.col("service") == "search") & pl.col("during"))["error"].mean()
    others = events.filter(pl.col("service") != "search")["error"].mean()
    assert share == pytest.approx(0.25, abs=0.02)
    assert isinstance(others, float)
    assert others < 0.01
    assert over_before(events, MEDIAN)["search"] == pytest.approx(1, abs=0.1)


def test_traffic_drop_leaves_the_remaining_share() -> None:
    ratios = over_before(happen([TrafficDrop(**window(remaining_ratio=0.2))]), RATE)  # type: ignore[arg-type]
    assert ratios.pop("search") == pytest.approx(0.1, abs=0.02)
    assert all(ratio == pytest.approx(0.5, abs=0.05) for ratio in ratios.values())


def test_silence_leaves_nothing() -> None:
    events = happen([Silence(**window())])  # type: ignore[arg-type]
    silent = events.filter((pl.col("service") == "search") & pl.col("during"))
    assert len(silent) == 0
    assert len(events.filter(pl.col("service") == "search")) > 1000


def test_noisy_neighbour_moves_the_p99_but_hardly_the_median_of_services_on_its_machine() -> None:
    services = WORLD.services_on(2)
    events = happen([NoisyNeighbour(**window(services=services, host=2, factor=6.0))])  # type: ignore[arg-type]
    slower = over_before(events, P99)
    middle = over_before(events, MEDIAN, by="series")
    assert all(slower[name] > 1.7 for name in services)
    assert all(ratio < 1.5 for ratio in middle.values())
    assert all(ratio == pytest.approx(1, abs=0.3) for name, ratio in slower.items() if name not in services)


def test_cascade_reaches_callers_milder_and_later() -> None:
    incident = Cascade(**window(services=("payments",)))  # type: ignore[arg-type]
    events = happen([incident])
    assert incident.touched(WORLD) == ("payments", "checkout", "gateway")
    slower = over_before(events, MEDIAN)
    failing = over_before(events, ERRORS)
    assert slower["payments"] > slower["checkout"] > slower["gateway"] > 2
    assert failing["payments"] > 10
    assert failing["gateway"] > 10
    assert slower["search"] == pytest.approx(1, abs=0.1)
    early = events.filter(pl.col("at_ms").is_between(FIRST_MS, FIRST_MS + incident.hop_ms, closed="left"))
    share = dict(early.group_by("service").agg(ERRORS).iter_rows())
    assert share["payments"] > 0.3
    assert share["checkout"] < 0.05


def test_flap_is_slow_in_the_first_half_of_every_period() -> None:
    events = happen([Flap(**window(factor=5.0, period_ms=120_000))]).filter(  # type: ignore[arg-type]
        (pl.col("service") == "search") & pl.col("during")
    )
    halves = events.group_by(half=(pl.col("at_ms") - FIRST_MS) // MINUTE_MS).agg(MEDIAN).sort("half")
    medians = halves["latency_us"].to_numpy()
    assert (medians[0::2] > 3 * medians[1::2]).all()


def test_surge_raises_all_traffic_in_proportion_and_nothing_else() -> None:
    incident = Surge(**window(services=WORLD.services, factor=1.6))  # type: ignore[arg-type]
    events = happen([incident])
    high = events.with_columns(during=pl.col("at_ms").is_between(FIRST_MS + 2 * MINUTE_MS, LAST_MS - 2 * MINUTE_MS))
    around = events.filter(~pl.col("during"))
    rates = dict(high.filter("during").group_by("series").agg(RATE / 360).iter_rows())
    usual = dict(around.group_by("series").agg(RATE / 1200).iter_rows())
    assert all(rates[name] / usual[name] == pytest.approx(1.6, rel=0.15) for name in usual)
    assert all(ratio == pytest.approx(1, abs=0.3) for ratio in over_before(events, P99).values())
    assert events.filter("during")["error"].mean() == pytest.approx(around["error"].mean(), abs=0.001)


def test_surge_rises_and_falls_without_a_step() -> None:
    events = happen([Surge(**window(services=WORLD.services, factor=1.6, ramp_ms=120_000))])  # type: ignore[arg-type]
    counts = events.group_by(slot=(pl.col("at_ms") - START_MS) // 20_000).len().sort("slot")["len"].to_numpy()
    assert np.abs(np.diff(np.log(counts))).max() < 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_surge_is_harmless(kind: type[Incident]) -> None:
    assert kind.page is (kind is not Surge)
    assert set(kind.signals) <= {"latency", "errors", "traffic"}


def test_truth_names_what_happens_and_ends_with_the_recording() -> None:
    incident = Cascade(start_ms=FIRST_MS, end_ms=LAST_MS, services=("payments",))
    truth = incident.truth(WORLD, until_ms=FIRST_MS + 5000)
    assert truth == {
        "schema": "truth/1",
        "scenario_id": f"cascade-payments-{FIRST_MS}",
        "kind": "cascade",
        "start_ms": FIRST_MS,
        "end_ms": FIRST_MS + 5000,
        "services": ["payments", "checkout", "gateway"],
        "endpoints": [],
        "signals": ["latency", "errors"],
        "page": True,
        "description": incident.description,
    }
    assert incident.truth(WORLD)["end_ms"] == LAST_MS


def test_overlapping_incidents_multiply() -> None:
    step = LatencyStep(**window(factor=3.0))  # type: ignore[arg-type]
    ratios = over_before(happen([step, step]), MEDIAN)
    assert ratios["search"] == pytest.approx(9, rel=0.1)


def test_incident_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="must be after `start_ms`"):
        Silence(start_ms=5, end_ms=5, services=("search",))


def test_incident_without_a_service_is_refused() -> None:
    with pytest.raises(ValueError, match="must name a service"):
        Silence(start_ms=5, end_ms=6, services=())

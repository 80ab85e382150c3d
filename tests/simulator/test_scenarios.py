"""The scenarios: when which incident happens."""

from itertools import islice, pairwise

import pytest

from simulator.incidents import KINDS, Incident, Surge
from simulator.scenarios import DEMO_CYCLE_MS, REST_MS, WARM_UP_MS, incidents
from simulator.world import generated, shop
from tests.simulator.recording import MINUTE_MS, START_MS

WORLD = shop(240.0)


def schedule(name: str, seed: int = 7, per_hour: float = 6.0, count: int = 60) -> list[Incident]:
    return list(islice(incidents(name, WORLD, start_ms=START_MS, seed=seed, incidents_per_hour=per_hour), count))


def test_calm_has_no_incident() -> None:
    assert schedule("calm") == []


def test_demo_shows_every_kind_within_half_an_hour_after_the_detectors_are_warm() -> None:
    story = schedule("demo", count=len(KINDS))
    assert {type(incident) for incident in story} == set(KINDS)
    assert min(incident.start_ms for incident in story) >= START_MS + 6 * MINUTE_MS
    assert max(incident.end_ms for incident in story) <= START_MS + 25 * MINUTE_MS


def test_demo_lets_a_service_recover_before_it_is_hit_again() -> None:
    story = [incident for incident in schedule("demo", count=len(KINDS)) if not isinstance(incident, Surge)]
    for service in WORLD.services:
        hits = [incident for incident in story if service in incident.touched(WORLD)]
        assert all(later.start_ms - earlier.end_ms >= 2 * MINUTE_MS for earlier, later in pairwise(hits))


def test_demo_surge_runs_alone() -> None:
    story = schedule("demo", count=len(KINDS))
    (surge,) = [incident for incident in story if isinstance(incident, Surge)]
    assert all(other is surge or other.end_ms <= surge.start_ms or other.start_ms >= surge.end_ms for other in story)


def test_demo_tells_its_story_again() -> None:
    story = schedule("demo", count=2 * len(KINDS))
    first, second = story[: len(KINDS)], story[len(KINDS) :]
    assert [i.start_ms + DEMO_CYCLE_MS for i in first] == [i.start_ms for i in second]
    assert [type(i) for i in first] == [type(i) for i in second]


@pytest.mark.parametrize("services", [1, 3, 40])
def test_demo_fits_a_generated_world_of_any_size(services: int) -> None:
    world = generated(services, 2, 100.0, seed=1)
    story = list(islice(incidents("demo", world, start_ms=0, seed=1, incidents_per_hour=1), len(KINDS)))
    assert all(world.members(incident.touched(world)).any() for incident in story)


def test_random_is_a_function_of_its_seed() -> None:
    assert schedule("random", seed=1) == schedule("random", seed=1)
    assert schedule("random", seed=1) != schedule("random", seed=2)


def test_random_begins_after_warm_up_in_order_and_uses_every_kind() -> None:
    drawn = schedule("random", count=120)
    starts = [incident.start_ms for incident in drawn]
    assert starts == sorted(starts)
    assert starts[0] >= START_MS + WARM_UP_MS
    assert {type(incident) for incident in drawn} == set(KINDS)


def test_random_lets_services_rest_so_that_every_alert_has_one_cause() -> None:
    drawn = schedule("random", count=120)
    for service in WORLD.services:
        hits = [incident for incident in drawn if service in incident.touched(WORLD)]
        assert all(later.start_ms - earlier.end_ms >= REST_MS for earlier, later in pairwise(hits))


def test_random_comes_at_the_asked_rate_where_there_is_room() -> None:
    drawn = schedule("random", per_hour=1.0, count=200)
    hours = (drawn[-1].start_ms - START_MS) / 3_600_000
    assert 0.6 < len(drawn) / hours < 1.1


def test_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="choose the calm scenario"):
        schedule("random", per_hour=0.0)


def test_unknown_scenario_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of demo, calm, random"):
        schedule("storm")

"""Which incidents happen when: the demo, a calm day, a seeded schedule for evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

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
from simulator.world import HOSTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulator.world import World

SCENARIOS: Final = ("demo", "calm", "random")

WARM_UP_MS: Final = 390_000
"""No incident begins earlier: detectors want 30 windows of 60 s at a slide of 10 s before they judge."""

DEMO_CYCLE_MS: Final = 1_800_000
"""The demo tells its story once in this time, then again."""

REST_MS: Final = 300_000
"""In the random scenario a service is left alone for this long after an incident, so that alerts have one cause."""

_MINUTE_MS: Final = 60_000
_CAST: Final = ("search", "accounts", "payments", "cart", "catalog")


def incidents(name: str, world: World, *, start_ms: int, seed: int, incidents_per_hour: float) -> Iterator[Incident]:
    """Give the incidents of a scenario, by their beginning, without end where the scenario has none.

    Args:
        name: One of `SCENARIOS`.
        world: Where they happen.
        start_ms: Event time at which the recording begins.
        seed: Fixes the random scenario.
        incidents_per_hour: Mean rate of the random scenario, over 0.

    Raises:
        ValueError: The scenario is unknown, or the rate cannot be.
    """
    if name == "calm":
        return iter(())
    if name == "demo":
        return _demo(world, start_ms)
    if name == "random":
        if not incidents_per_hour > 0:
            message = f"`incidents_per_hour` must be over 0, or choose the calm scenario; got {incidents_per_hour:g}"
            raise ValueError(message)
        return _random(world, start_ms, seed, incidents_per_hour)
    message = f"`scenario` must be one of {', '.join(SCENARIOS)}; got {name!r}"
    raise ValueError(message)


def _demo(world: World, start_ms: int) -> Iterator[Incident]:
    """Tell the story of the demo again and again."""
    while True:
        yield from sorted(_story(world, start_ms), key=lambda incident: incident.start_ms)
        start_ms += DEMO_CYCLE_MS


def _story(world: World, start_ms: int) -> list[Incident]:
    """Show every kind once within 25 minutes, each on services that had time to recover from the one before."""

    def begin(minute: float) -> int:
        return start_ms + round(minute * _MINUTE_MS)

    def service(name: str) -> tuple[str, ...]:
        # A generated world has other names: the story then happens to its first services.
        return (name if name in world.services else world.services[_CAST.index(name) % len(world.services)],)

    host = 2
    neighbours = world.services_on(host) or service("search")
    return [
        LatencyStep(start_ms=begin(6.5), end_ms=begin(8.5), services=service("search")),
        ErrorBurst(start_ms=begin(8), end_ms=begin(10), services=service("accounts")),
        Surge(start_ms=begin(10), end_ms=begin(13.5), services=world.services),
        Cascade(start_ms=begin(13.5), end_ms=begin(15.5), services=service("payments")),
        Silence(start_ms=begin(15.5), end_ms=begin(18), services=service("cart")),
        NoisyNeighbour(start_ms=begin(16.5), end_ms=begin(18.5), services=neighbours, host=host),
        TrafficDrop(start_ms=begin(18.5), end_ms=begin(20.5), services=service("catalog")),
        SlowDrift(start_ms=begin(19.5), end_ms=begin(23.5), services=service("payments")),
        Flap(start_ms=begin(21), end_ms=begin(25), services=service("search")),
    ]


def _random(world: World, start_ms: int, seed: int, incidents_per_hour: float) -> Iterator[Incident]:
    """Draw incidents one after the other; a service that had one rests before the next.

    An incident that finds no rested service is left out, so a small world bears fewer than asked.
    """
    rng = np.random.default_rng([seed, 0x1AC1DE47])
    rested_ms = dict.fromkeys(world.services, 0)
    now_ms = start_ms + WARM_UP_MS
    while True:
        now_ms += round(rng.exponential(3_600_000 / incidents_per_hour)) // 1000 * 1000
        incident = _draw(world, now_ms, rng)
        touched = incident.touched(world)
        if any(rested_ms[name] > now_ms for name in touched):
            continue
        rested_ms.update(dict.fromkeys(touched, incident.end_ms + REST_MS))
        yield incident


def _draw(world: World, start_ms: int, rng: np.random.Generator) -> Incident:
    """Draw the kind, the place, the length and the strength of one incident."""
    kind = KINDS[rng.integers(len(KINDS))]
    end_ms = start_ms + int(rng.integers(120, 481)) * 1000
    strength = float(rng.uniform())
    host = int(rng.integers(HOSTS))
    services: tuple[str, ...] = (world.services[rng.integers(len(world.services))],)
    if kind is Surge:
        return Surge(start_ms=start_ms, end_ms=end_ms, services=world.services, factor=round(1.3 + 0.5 * strength, 2))
    if kind is NoisyNeighbour:
        services = world.services_on(host) or services
        factor = round(4 + 4 * strength, 1)
        return NoisyNeighbour(start_ms=start_ms, end_ms=end_ms, services=services, host=host, factor=factor)
    if kind is ErrorBurst:
        ratio = round(0.08 + 0.3 * strength, 2)
        return ErrorBurst(start_ms=start_ms, end_ms=end_ms, services=services, error_ratio=ratio)
    if kind is TrafficDrop:
        ratio = round(0.1 + 0.25 * strength, 2)
        return TrafficDrop(start_ms=start_ms, end_ms=end_ms, services=services, remaining_ratio=ratio)
    if kind is LatencyStep:
        return LatencyStep(start_ms=start_ms, end_ms=end_ms, services=services, factor=round(2 + 3 * strength, 1))
    return kind(start_ms=start_ms, end_ms=end_ms, services=services)

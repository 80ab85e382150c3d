"""What can go wrong with the fake world: one dataclass for each kind of incident, each with its truth.

Only `Cascade` and `NoisyNeighbour` reach more than the services they are aimed at; every other kind stays where it is
put, so that each shows one thing and its truth is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.world import World

    Numbers = NDArray[np.float64] | float


class Effect(NamedTuple):
    """What an incident does to some requests; arrays of their length, or one number for all of them.

    Attributes:
        load: Factor on the rate of requests.
        latency: Factor on the latency.
        errors: Share of requests that fail on top of the usual ones.
    """

    load: Numbers = 1.0
    latency: Numbers = 1.0
    errors: Numbers = 0.0


class Hit(NamedTuple):
    """The requests that fall into an incident: while it runs, on a series it touches; m of them.

    Attributes:
        elapsed_ms: Shape (m,), time since the incident began.
        series: Shape (m,), index of the series in its world.
        host: Shape (m,), index of the machine in its world.
    """

    elapsed_ms: NDArray[np.int64]
    series: NDArray[np.int32]
    host: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that happens to some services for some time.

    Attributes:
        kind: Name of the kind, in kebab case.
        signals: The signals in which it shows.
        page: Whether a person should be woken.
        start_ms: Event time at which it begins, inclusive.
        end_ms: Event time at which it ends, exclusive.
        services: The services it is aimed at.
        endpoints: The endpoints it is aimed at; empty: all endpoints of the services.
    """

    kind: ClassVar[str]
    signals: ClassVar[tuple[str, ...]]
    page: ClassVar[bool] = True

    start_ms: int
    end_ms: int
    services: tuple[str, ...]
    endpoints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an incident that could not happen.

        Raises:
            ValueError: It ends before it starts, or touches nothing.
        """
        if self.end_ms <= self.start_ms:
            message = (
                f"`end_ms` must be after `start_ms`, or the {self.kind} never shows: {self.start_ms}, {self.end_ms}"
            )
            raise ValueError(message)
        if not self.services:
            message = f"`services` must name a service, or the {self.kind} has no truth"
            raise ValueError(message)

    @property
    def duration_ms(self) -> int:
        """How long it lasts."""
        return self.end_ms - self.start_ms

    @property
    def load_max(self) -> float:
        """The largest factor on the rate of requests that `effect` ever gives, at least 1."""
        return 1.0

    @property
    def description(self) -> str:
        """Say in a sentence what happens, for the truth and for the live view."""
        raise NotImplementedError

    def effect(self, world: World, hit: Hit) -> Effect:
        """Say what happens to the requests that it hits."""
        raise NotImplementedError

    def touched(self, world: World) -> tuple[str, ...]:  # noqa: ARG002 - only some kinds need the graph
        """Name the services in which it shows."""
        return self.services

    def truth(self, world: World, until_ms: int | None = None) -> dict[str, Any]:
        """Give the labelled incident as it goes to the truth topic.

        Args:
            world: The world it happens in.
            until_ms: When the recording ends; an incident that is still running then ends with it.
        """
        services = self.touched(world)
        return {
            "schema": "truth/1",
            "scenario_id": f"{self.kind}-{self.services[0]}-{self.start_ms}",
            "kind": self.kind,
            "start_ms": self.start_ms,
            "end_ms": self.end_ms if until_ms is None else min(self.end_ms, until_ms),
            "services": list(services),
            "endpoints": list(self.endpoints),
            "signals": list(self.signals),
            "page": self.page,
            "description": self.description,
        }

    def _names(self) -> str:
        return " and ".join(self.services)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStep(Incident):
    """Every request takes `factor` times as long, from one moment to the next: a bad deployment."""

    kind = "latency-step"
    signals = ("latency",)
    factor: float = 4.0

    @property
    def description(self) -> str:
        """Say in a sentence what happens."""
        return f"{self._names()} takes {self.factor:g} times as long from one moment to the next"

    def effect(self, world: World, hit: Hit) -> Effect:  # noqa: ARG002
        """Slow every request by the same factor."""
        return Effect(latency=self.factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDrift(Incident):
    """Latency grows evenly up to `factor` times the usual: a leak, a table without an index."""

    kind = "slow-drift"
    signals = ("latency",)
    factor: float = 4.0

    @property
    def description(self) -> str:
        """Say in a sentence what happens."""
        minutes = self.duration_ms / 60_000
        return f"{self._names()} gets slower over {minutes:g} minutes, up to {self.factor:g} times the usual latency"

    def effect(self, world: World, hit: Hit) -> Effect:  # noqa: ARG002
        """Slow each request by a factor that grows with time."""
        progress = hit.elapsed_ms / self.duration_ms
        return Effect(latency=1.0 + (self.factor - 1.0) * progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBurst(Incident):
    """A share of the requests fails, at the usual speed."""

    kind = "error-burst"
    signals = ("errors",)
    error_ratio: float = 0.25

    @property
    def description(self) -> str:
        """Say in a sentence what happens."""
        return f"{self.error_ratio:.0%} of the requests to {self._names()} fail"

    def effect(self, world: World, hit: Hit) -> Effect:  # noqa: ARG002
        """Fail a share of the requests."""
        return Effect(errors=self.error_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficDrop(Incident):
    """Only `remaining_ratio` of the requests still arrive: a broken load balancer, a lost region."""

    kind = "traffic-drop"
    signals = ("traffic",)
    remaining_ratio: float = 0.2

    @property
    def description(self) -> str:
        """Say in a sentence what happens."""
        return f"only {self.remaining_ratio:.0%} of the usual requests reach {self._names()}"

    def effect(self, world: World, hit: Hit) -> Effect:  # noqa: ARG002
        """Take most requests away."""
        return Effect(load=self.remaining_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence(Incident):
    """No request at all is reported: the service is gone, or its telemetry is."""

    kind = "silence"
    signals = ("traffic",)

    @property
    def description(self) -> str:
        """Say in a sentence what happens."""
        return f"{self._names()} reports nothing at all"

    def effect(self, world: World, hit: Hit) -> Effect:  # noqa: ARG002
        """Take every request away."""
        return Effect(load=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyNeighbour(Incident):
    """Whatever runs on one machine is slow: the median hardly moves, the P99 of several services does.

    Attributes:
        host: Index of the machine; `services` are those with a replica on it.
        factor: Factor on the latency of the requests served there.
    """

    kind = "noisy-neighbour"
    signals = ("latency",)
    host: int
    factor: float = 6.0

    @property
    def description(self) -> str:
        """Say in a sentence what happens."""
        return f"machine node-{self.host} is {self.factor:g} times slower for {self._names()}, the others are not"

    def effect(self, world: World, hit: Hit) -> Effect:  # noqa: ARG002
        """Slow the requests that this machine serves."""
        return Effect(latency=np.where(hit.host == self.host, self.factor, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade(Incident):
    """A failing service takes its callers with it, each hop later and milder.

    Attributes:
        factor: Factor on the latency of the failing service; each hop keeps `damping` of what exceeds 1.
        error_ratio: Share of its requests that fail; each hop keeps `damping` of it.
        damping: What one hop to a caller leaves, in (0, 1].
        hop_ms: How much later each hop begins.
        hops_max: Callers further away than this notice nothing.
    """

    kind = "cascade"
    signals = ("latency", "errors")
    factor: float = 8.0
    error_ratio: float = 0.4
    damping: float = 0.6
    hop_ms: int = 20_000
    hops_max: int = 2

    @property
    def description(self) -> str:
        """Say in a sentence what happens."""
        return f"{self.services[0]} fails and takes its callers with it, each a little later and milder"

    def touched(self, world: World) -> tuple[str, ...]:
        """Name the failing service, then its callers, nearest first."""
        return tuple(name for name, hops in world.hops(self.services[0]).items() if hops <= self.hops_max)

    def effect(self, world: World, hit: Hit) -> Effect:
        """Slow and fail requests by how far their service is from the failing one."""
        distance = world.hops(self.services[0])
        hops = np.array([distance.get(name, 0) for name in world.services])[world.service[hit.series]]
        strength = np.where(hit.elapsed_ms >= hops * self.hop_ms, self.damping**hops, 0.0)
        return Effect(latency=1.0 + (self.factor - 1.0) * strength, errors=self.error_ratio * strength)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flap(Incident):
    """Slow, well, slow, well: half of every `period_ms` at `factor` times the usual latency. One page, not many."""

    kind = "flap"
    signals = ("latency",)
    factor: float = 5.0
    period_ms: int = 120_000

    @property
    def description(self) -> str:
        """Say in a sentence what happens."""
        half_s = self.period_ms / 2000
        return f"{self._names()} is {self.factor:g} times slower for {half_s:g} s, well for {half_s:g} s, and again"

    def effect(self, world: World, hit: Hit) -> Effect:  # noqa: ARG002
        """Slow the requests in the first half of every period."""
        slow = hit.elapsed_ms % self.period_ms < self.period_ms / 2
        return Effect(latency=np.where(slow, self.factor, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Surge(Incident):
    """More of everything, evenly over all endpoints, at the usual speed and without errors. Nobody is woken.

    Attributes:
        factor: Factor on the rate of requests at the height of it.
        ramp_ms: How long it takes to rise and to fall; at most half the duration counts.
    """

    kind = "surge"
    signals = ("traffic",)
    page = False
    factor: float = 1.6
    ramp_ms: int = 90_000

    @property
    def load_max(self) -> float:
        """The largest factor on the rate of requests."""
        return max(1.0, self.factor)

    @property
    def description(self) -> str:
        """Say in a sentence what happens."""
        return f"{self.factor:g} times the usual traffic on every service, which all of them bear well"

    def effect(self, world: World, hit: Hit) -> Effect:  # noqa: ARG002
        """Raise the load along a smooth ramp, and let it fall along another."""
        ramp_ms = max(1.0, min(self.ramp_ms, self.duration_ms / 2))
        edge_ms = np.minimum(hit.elapsed_ms, self.duration_ms - hit.elapsed_ms)
        rise = 0.5 - 0.5 * np.cos(math.pi * np.minimum(1.0, edge_ms / ramp_ms))
        return Effect(load=1.0 + (self.factor - 1.0) * rise)


KINDS: tuple[type[Incident], ...] = (
    LatencyStep,
    SlowDrift,
    ErrorBurst,
    TrafficDrop,
    Silence,
    NoisyNeighbour,
    Cascade,
    Flap,
    Surge,
)
"""Every kind of incident."""

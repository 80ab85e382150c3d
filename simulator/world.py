"""The services of the fake world: who calls whom, how often, how fast and how reliably."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

HOSTS: Final = 8
"""Machines that the replicas of all services share, so that one noisy neighbour touches several services."""

REPLICAS: Final = 3
"""Replicas of each service, each on a host of its own."""

REGIONS: Final = ("eu", "us")

TAIL_RATIO: Final = 0.004
"""Share of requests in the heavy tail: below 1%, so that a P99 stays in the body and can be told from noise."""

TAIL_EXPONENT: Final = 1.5
"""Pareto exponent of the heavy tail: finite mean, no variance."""

TAIL_FACTOR_MAX: Final = 60.0
"""A request never takes longer than this many times what it would have taken without the tail."""

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation of one service, on an ordinary day.

    Attributes:
        service: Name of the service.
        method: HTTP method.
        name: Route, which is the endpoint of the events.
        arrivals: Requests from outside the world, relative to those of the other endpoints.
        median_ms: Median latency.
        sigma: Shape of the lognormal body; 0.3 is steady, 0.6 is erratic.
        calls: What one request asks of other endpoints: ("service|route", calls per request).
        error_ratio: Share of requests that end with a status of 500 or more.
    """

    service: str
    method: str
    name: str
    arrivals: float
    median_ms: float
    sigma: float
    calls: tuple[tuple[str, float], ...] = ()
    error_ratio: float = 0.002

    @property
    def series(self) -> str:
        """The key of the series: service and route."""
        return f"{self.service}|{self.name}"


# Callers stand before what they call, so that one pass over the tuple gives every endpoint its load.
_SHOP: Final = (
    Endpoint("gateway", "GET", "/", 14, 42, 0.40, (("accounts|/session", 0.5), ("catalog|/categories", 1.0))),
    Endpoint("gateway", "GET", "/search", 10, 85, 0.40, (("search|/query", 1.0),)),
    Endpoint(
        "gateway",
        "GET",
        "/product",
        16,
        55,
        0.40,
        (("catalog|/products/{id}", 1.0), ("inventory|/stock", 0.5), ("cart|/cart", 0.3)),
    ),
    Endpoint("gateway", "POST", "/cart", 8, 60, 0.35, (("accounts|/session", 1.0), ("cart|/items", 1.0))),
    Endpoint("gateway", "POST", "/checkout", 8, 240, 0.35, (("accounts|/session", 1.0), ("checkout|/orders", 1.0))),
    Endpoint("accounts", "POST", "/login", 5, 120, 0.35, error_ratio=0.004),
    Endpoint("accounts", "GET", "/session", 0, 6, 0.40, error_ratio=0.0005),
    Endpoint("search", "GET", "/query", 0, 55, 0.45, (("catalog|/products/{id}", 1.0),)),
    Endpoint("search", "GET", "/suggest", 12, 14, 0.40),
    Endpoint(
        "checkout", "POST", "/orders", 0, 180, 0.35, (("payments|/charges", 1.0), ("inventory|/reservations", 1.0))
    ),
    Endpoint("checkout", "GET", "/orders/{id}", 7, 25, 0.35),
    Endpoint("cart", "GET", "/cart", 3, 9, 0.40),
    Endpoint("cart", "POST", "/items", 0, 18, 0.35, (("inventory|/stock", 1.0),)),
    Endpoint("catalog", "GET", "/products/{id}", 0, 12, 0.45),
    Endpoint("catalog", "GET", "/categories", 0, 8, 0.35),
    Endpoint("payments", "POST", "/charges", 0, 110, 0.40, error_ratio=0.006),
    Endpoint("payments", "POST", "/refunds", 2, 150, 0.40, error_ratio=0.006),
    Endpoint("inventory", "GET", "/stock", 0, 5, 0.35),
    Endpoint("inventory", "POST", "/reservations", 0, 22, 0.40),
)


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """All series of the world as arrays, n of them, and the graph of their services.

    Attributes:
        services: Names of the services.
        callers: For each service that is called, the services that call it.
        service: Shape (n,), index into `services`.
        endpoint: Route of each series.
        method: HTTP method of each series.
        rate_per_s: Shape (n,), requests per second of event time, averaged over a day.
        median_ms: Shape (n,), median latency.
        sigma: Shape (n,), shape of the lognormal body.
        error_ratio: Shape (n,), share of failing requests.
        hosts: Names of the machines.
        replicas: Shape (services, REPLICAS): the machines that a service runs on, indices into `hosts`.
    """

    services: tuple[str, ...]
    callers: dict[str, tuple[str, ...]]
    service: NDArray[np.int32]
    endpoint: tuple[str, ...]
    method: tuple[str, ...]
    rate_per_s: NDArray[np.float64]
    median_ms: NDArray[np.float64]
    sigma: NDArray[np.float64]
    error_ratio: NDArray[np.float64]
    hosts: tuple[str, ...]
    replicas: NDArray[np.int32]

    def __len__(self) -> int:
        """Number of series."""
        return len(self.endpoint)

    def members(self, services: Collection[str], endpoints: Collection[str] = ()) -> NDArray[np.bool_]:
        """Tell which series belong to the given services, and to the given endpoints when there are any.

        Returns:
            Shape (n,), one truth value for each series.

        Raises:
            ValueError: A service is unknown.
        """
        unknown = sorted(set(services) - set(self.services))
        if unknown:
            message = f"an incident must name services of its world, or it would hit nothing; unknown: {unknown}"
            raise ValueError(message)
        wanted = np.array([name in services for name in self.services])
        chosen: NDArray[np.bool_] = wanted[self.service]
        if endpoints:
            chosen &= np.array([name in endpoints for name in self.endpoint])
        return chosen

    def hops(self, service: str) -> dict[str, int]:
        """Count the calls between each service and the given one, over the callers and their callers.

        Returns:
            Number of hops for every service whose requests reach `service`, with 0 for itself, nearest first.
        """
        distance = {service: 0}
        queue = [service]
        for name in queue:
            for caller in self.callers.get(name, ()):
                if caller not in distance:
                    distance[caller] = distance[name] + 1
                    queue.append(caller)
        return distance

    def services_on(self, host: int) -> tuple[str, ...]:
        """Name the services that have a replica on a machine."""
        return tuple(self.services[row] for row in np.flatnonzero((self.replicas == host).any(axis=1)))


def load_factor(time_ms: float) -> float:
    """Give the load at a time of day (UTC) relative to the day's average: low at night, two humps by day."""
    day = 2 * math.pi * (time_ms % _DAY_MS) / _DAY_MS
    return 1.0 - 0.35 * math.cos(day - 0.5) + 0.08 * math.cos(2 * day - 0.9)


def shop(rate_per_s: float) -> World:
    """Build the default world: eight services of a web shop, 19 series.

    Args:
        rate_per_s: Requests per second of event time over all series, averaged over a day.
    """
    return _assemble(_SHOP, rate_per_s)


def generated(services: int, endpoints: int, rate_per_s: float, seed: int) -> World:
    """Build a world of any size, for benchmarks: `services` times `endpoints` series of unequal weight.

    Each service is called by up to two of those before it.

    Args:
        services: Number of services, at least 1.
        endpoints: Number of endpoints of each service, at least 1.
        rate_per_s: Requests per second of event time over all series, averaged over a day.
        seed: Fixes weights, latencies and the graph.

    Raises:
        ValueError: There is no service or no endpoint.
    """
    if services < 1 or endpoints < 1:
        message = f"a world needs at least one service and one endpoint; got {services} and {endpoints}"
        raise ValueError(message)
    rng = np.random.default_rng([seed, services, endpoints])
    size = services * endpoints
    weight = rng.lognormal(0.0, 0.5, size)
    median_ms = np.round(rng.lognormal(math.log(30), 0.8, size), 3)
    sigma = rng.uniform(0.3, 0.5, size)
    names = [f"service-{index:04d}" for index in range(services)]
    parents = [sorted(set(rng.integers(0, index, 2).tolist())) if index else [] for index in range(services)]
    return World(
        services=tuple(names),
        callers={names[index]: tuple(names[p] for p in parents[index]) for index in range(1, services)},
        service=np.repeat(np.arange(services, dtype=np.int32), endpoints),
        endpoint=tuple(f"/route/{index:03d}" for index in range(endpoints)) * services,
        method=("GET",) * size,
        rate_per_s=weight * (rate_per_s / weight.sum()),
        median_ms=median_ms,
        sigma=sigma,
        error_ratio=np.full(size, 0.002),
        hosts=_host_names(),
        replicas=_placement(services),
    )


def _assemble(endpoints: tuple[Endpoint, ...], rate_per_s: float) -> World:
    """Turn a list of endpoints, callers first, into arrays."""
    services = tuple(dict.fromkeys(endpoint.service for endpoint in endpoints))
    load = {endpoint.series: endpoint.arrivals for endpoint in endpoints}
    callers: dict[str, dict[str, None]] = {}
    for endpoint in endpoints:
        for callee, calls in endpoint.calls:
            load[callee] += calls * load[endpoint.series]
            callers.setdefault(callee.partition("|")[0], {})[endpoint.service] = None
    weight = np.array([load[endpoint.series] for endpoint in endpoints])
    return World(
        services=services,
        callers={name: tuple(found) for name, found in callers.items()},
        service=np.array([services.index(endpoint.service) for endpoint in endpoints], dtype=np.int32),
        endpoint=tuple(endpoint.name for endpoint in endpoints),
        method=tuple(endpoint.method for endpoint in endpoints),
        rate_per_s=weight * (rate_per_s / weight.sum()),
        median_ms=np.array([endpoint.median_ms for endpoint in endpoints]),
        sigma=np.array([endpoint.sigma for endpoint in endpoints]),
        error_ratio=np.array([endpoint.error_ratio for endpoint in endpoints]),
        hosts=_host_names(),
        replicas=_placement(len(services)),
    )


def _host_names() -> tuple[str, ...]:
    return tuple(f"node-{index}" for index in range(HOSTS))


def _placement(services: int) -> NDArray[np.int32]:
    """Spread the replicas of each service over the machines, so that each machine carries several services."""
    first = np.arange(services)[:, None]
    placement: NDArray[np.int32] = ((first + np.array([0, 1, 3])[None, :]) % HOSTS).astype(np.int32)
    return placement

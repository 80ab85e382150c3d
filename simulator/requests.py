"""The requests of the fake world, drawn in arrays: when, where, how long, with what outcome."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import numpy as np

from simulator.incidents import Effect, Hit
from simulator.world import REPLICAS, TAIL_EXPONENT, TAIL_FACTOR_MAX, TAIL_RATIO, load_factor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simulator.incidents import Incident
    from simulator.world import World

STATUSES: Final = (200, 201, 404, 500, 503, 504)
"""The statuses that occur; requests hold indices into this."""

_STATUS_CUMULATIVE: Final = np.array([0.90, 0.98])
_FIRST_ERROR: Final = 3
_LATENCY_MAX_US: Final = 10_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """A run of requests as columns of equal length n, in order of arrival.

    Attributes:
        timestamp_ms: int64, event time as the service stamped it.
        arrival_ms: int64, event time at which Kafka gets it.
        series: int32, index of the series in its world.
        host: int32, index of the machine in its world.
        latency_us: int64, latency in microseconds.
        status: int8, index into `STATUSES`.
        trace: uint64, trace id.
        fault: int8, 0 for a good event, else how its encoding is broken; see `disorder.FAULTS`.
        late: bool, whether it was held back for longer than a reader waits.
        copy: bool, whether it repeats an event sent before.
    """

    timestamp_ms: NDArray[np.int64]
    arrival_ms: NDArray[np.int64]
    series: NDArray[np.int32]
    host: NDArray[np.int32]
    latency_us: NDArray[np.int64]
    status: NDArray[np.int8]
    trace: NDArray[np.uint64]
    fault: NDArray[np.int8]
    late: NDArray[np.bool_]
    copy: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.timestamp_ms)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Give the columns by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def take(self, rows: NDArray[Any]) -> Requests:
        """Choose rows by index or by truth value."""
        return Requests(**{name: column[rows] for name, column in self.columns().items()})


def concat(parts: Sequence[Requests]) -> Requests:
    """Put runs of requests one after the other."""
    if len(parts) == 1:
        return parts[0]
    return Requests(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in parts[0].columns()})


def draw(world: World, incidents: Sequence[Incident], start_ms: int, end_ms: int, rng: np.random.Generator) -> Requests:
    """Draw the requests of one stretch of event time.

    They are a Poisson process whose rate follows the time of day and the incidents, by thinning: candidates are drawn
    at the highest rate that any incident asks for and kept with the probability that belongs to their moment.

    Args:
        world: The series, their rates and their latencies.
        incidents: Those that may overlap the stretch.
        start_ms: Begin of the stretch, inclusive.
        end_ms: End of the stretch, exclusive.
        rng: The only source of randomness.

    Returns:
        The requests by timestamp, none of them disturbed.
    """
    running = [incident for incident in incidents if incident.start_ms < end_ms and incident.end_ms > start_ms]
    headroom = float(np.prod([incident.load_max for incident in running]))
    cumulative = np.cumsum(world.rate_per_s)
    mean = cumulative[-1] * load_factor((start_ms + end_ms) / 2) * headroom * (end_ms - start_ms) / 1000
    size = int(rng.poisson(mean))
    timestamp_ms = np.sort(rng.integers(start_ms, end_ms, size))
    series = np.searchsorted(cumulative, rng.random(size) * cumulative[-1], side="right").astype(np.int32)
    np.minimum(series, len(world) - 1, out=series)
    host = world.replicas[world.service[series], rng.integers(0, REPLICAS, size, dtype=np.int32)]
    latency_ms = _latency_ms(world, series, rng)
    errors = world.error_ratio[series]
    outcome = rng.random(size)
    trace = rng.integers(0, 2**64, size, dtype=np.uint64)
    load: NDArray[np.float64] | None = None
    for incident in running:
        rows, effect = _effect(incident, world, timestamp_ms, series, host)
        latency_ms[rows] *= effect.latency
        errors[rows] += effect.errors
        if not (isinstance(effect.load, float) and effect.load == 1.0):
            load = np.ones(size) if load is None else load
            load[rows] *= effect.load
    requests = Requests(
        timestamp_ms=timestamp_ms,
        arrival_ms=timestamp_ms,
        series=series,
        host=host,
        latency_us=np.clip(np.rint(latency_ms * 1000), 1, _LATENCY_MAX_US).astype(np.int64),
        status=_status(outcome, errors),
        trace=trace,
        fault=np.zeros(size, dtype=np.int8),
        late=np.zeros(size, dtype=np.bool_),
        copy=np.zeros(size, dtype=np.bool_),
    )
    if load is None:
        return requests
    return requests.take(rng.random(size) * headroom < load)


def _latency_ms(world: World, series: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw latencies from a lognormal body with a Pareto tail."""
    body = np.exp(world.sigma[series] * rng.standard_normal(len(series)))
    body *= world.median_ms[series]
    chance = rng.random(len(series))
    tail = np.flatnonzero(chance < TAIL_RATIO)
    # Given that it is in the tail, chance / TAIL_RATIO is uniform again: the Pareto factor needs no draw of its own.
    stretch = np.maximum(chance[tail] / TAIL_RATIO, 1e-12) ** (-1 / TAIL_EXPONENT)
    body[tail] *= np.minimum(stretch, TAIL_FACTOR_MAX)
    return body


def _status(outcome: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.int8]:
    """Turn one uniform number for each request into a status: errors below their ratio, the rest succeeds."""
    failing = np.flatnonzero(outcome < errors)
    spread = (outcome - errors) / (1 - np.minimum(errors, 0.999_999))
    status: NDArray[np.int8] = np.searchsorted(_STATUS_CUMULATIVE, spread, side="right").astype(np.int8)
    kinds = len(STATUSES) - _FIRST_ERROR
    status[failing] = _FIRST_ERROR + np.minimum(outcome[failing] / errors[failing] * kinds, kinds - 1).astype(np.int8)
    return status


def _effect(
    incident: Incident,
    world: World,
    timestamp_ms: NDArray[np.int64],
    series: NDArray[np.int32],
    host: NDArray[np.int32],
) -> tuple[NDArray[np.intp], Effect]:
    """Find the requests that an incident hits, and what it does to them."""
    members = world.members(incident.touched(world), incident.endpoints)
    first, last = np.searchsorted(timestamp_ms, [incident.start_ms, incident.end_ms])
    rows = first + np.flatnonzero(members[series[first:last]])
    hit = Hit(elapsed_ms=timestamp_ms[rows] - incident.start_ms, series=series[rows], host=host[rows])
    return rows, incident.effect(world, hit)

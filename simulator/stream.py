"""The whole recording of a fake world: a function of the plan alone, chunk after chunk of event time."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from simulator import requests as drawing
from simulator.disorder import Disturbances, disturb
from simulator.encode import CONTENTS, Encoder, Records, with_heartbeats
from simulator.scenarios import incidents
from simulator.world import generated, shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulator.incidents import Incident
    from simulator.requests import Requests
    from simulator.world import World

_CHUNK_EVENTS: Final = 16_384
_CHUNK_MS_MIN: Final = 100
_CHUNK_MS_MAX: Final = 10_000

_SERVICES: Final = 8
_ENDPOINTS: Final = 3

_EVENTS: Final = 0
_DISTURBANCES: Final = 1
_ENCODING: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides what is recorded.

    Attributes:
        seed: Fixes every random choice.
        start_ms: Event time at which the recording begins.
        duration_ms: Event time it lasts; None: without end.
        rate_per_s: Events per second of event time over all series, averaged over a day.
        services: Number of services of a generated world; None with `endpoints` None: the web shop.
        endpoints: Endpoints of each service of a generated world.
        scenario: One of `scenarios.SCENARIOS`.
        incidents_per_hour: Mean rate of the random scenario.
        disturbances: What goes wrong on the way to Kafka.
        encoding: One of `encode.ENCODINGS`.
        batch_size: Events in an array or NDJSON value, at most.
        linger_ms: How long an event waits for its batch to fill, at most.
        event_ids: Whether each event carries an `event_id`.
        heartbeat_ms: Event time between heartbeats; 0: none.
    """

    seed: int = 7
    start_ms: int
    duration_ms: int | None = None
    rate_per_s: float = 240.0
    services: int | None = None
    endpoints: int | None = None
    scenario: str = "demo"
    incidents_per_hour: float = 6.0
    disturbances: Disturbances = field(default_factory=Disturbances)
    encoding: str = "single"
    batch_size: int = 100
    linger_ms: int = 1000
    event_ids: bool = False
    heartbeat_ms: int = 1000

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be.

        Raises:
            ValueError: A number is out of range.
        """
        if not self.rate_per_s > 0:
            message = f"`rate` must be over 0, or nothing is recorded; got {self.rate_per_s:g}"
            raise ValueError(message)
        if self.duration_ms is not None and self.duration_ms <= 0:
            message = f"`duration` must be over 0, or nothing is recorded; got {self.duration_ms} ms"
            raise ValueError(message)
        if self.heartbeat_ms < 0 or self.seed < 0:
            message = f"`heartbeat_ms` and `seed` must not be negative; got {self.heartbeat_ms} and {self.seed}"
            raise ValueError(message)

    @property
    def end_ms(self) -> int | None:
        """Event time at which the recording ends; None: never."""
        return None if self.duration_ms is None else self.start_ms + self.duration_ms

    def world(self) -> World:
        """Build the world that is recorded."""
        if self.services is None and self.endpoints is None:
            return shop(self.rate_per_s)
        services = _SERVICES if self.services is None else self.services
        endpoints = _ENDPOINTS if self.endpoints is None else self.endpoints
        return generated(services, endpoints, self.rate_per_s, self.seed)

    def incidents(self, world: World) -> Iterator[Incident]:
        """Give the incidents of the recording, by their beginning."""
        story = incidents(
            self.scenario,
            world,
            start_ms=self.start_ms,
            seed=self.seed,
            incidents_per_hour=self.incidents_per_hour,
        )
        for incident in story:
            if self.end_ms is not None and incident.start_ms >= self.end_ms:
                return
            yield incident


@dataclass(slots=True, eq=False)
class Chunk:
    """A stretch of the recording, no longer than a few seconds.

    Attributes:
        start_ms: Event time at which it begins.
        truth: For the truth topic: the incidents that begin at `start_ms`.
        records: For the events topic, heartbeats included.
        paced: Whether it waits for its time; what is still on its way when the recording ends does not.
    """

    start_ms: int
    truth: Records
    records: Records
    paced: bool = True


def record(plan: Plan, partitions: int) -> Iterator[Chunk]:
    """Record the world: the same plan gives the same records in the same order, whenever and however fast it is read.

    Event time is cut into chunks on a grid that depends on the plan only, each with random streams of its own. Events
    that arrive after their chunk are held back until they do; those that would arrive after the end of the recording
    come in a last chunk.

    Args:
        plan: What to record.
        partitions: Number of partitions of the events topic.

    Returns:
        Chunks in order of event time.

    Raises:
        ValueError: The plan names something that does not exist; raised at once, not with the first chunk.
    """
    world = plan.world()
    story = _Story(plan.incidents(world))
    encoder = Encoder(
        world,
        partitions=partitions,
        encoding=plan.encoding,
        batch_size=plan.batch_size,
        linger_ms=plan.linger_ms,
        event_ids=plan.event_ids,
    )
    return _recorded(plan, world, story, encoder, partitions)


def _recorded(plan: Plan, world: World, story: _Story, encoder: Encoder, partitions: int) -> Iterator[Chunk]:
    """Draw, disturb and encode one stretch after the other."""
    held: list[Requests] = []
    for number, (start_ms, end_ms) in enumerate(_grid(plan)):
        running, beginning = story.between(start_ms, end_ms)
        drawn = drawing.draw(world, running, start_ms, end_ms, _rng(plan, _EVENTS, number))
        held.append(disturb(drawn, plan.disturbances, _rng(plan, _DISTURBANCES, number)))
        arrived, held = _split(held, end_ms)
        records = encoder.encode(arrived, _rng(plan, _ENCODING, number))
        records = with_heartbeats(records, start_ms, end_ms, plan.heartbeat_ms, partitions)
        yield from _chunks(start_ms, records, _truths(beginning, world, plan.end_ms))
    rest = drawing.concat(held)
    rest = rest.take(rest.arrival_ms.argsort(kind="stable"))
    yield Chunk(end_ms, Records(), encoder.encode(rest, _rng(plan, _ENCODING, number + 1)), paced=False)


class _Story:
    """The incidents of a scenario, told as event time goes on."""

    def __init__(self, incidents: Iterator[Incident]) -> None:
        self._coming = incidents
        self._next = next(incidents, None)
        self._running: list[Incident] = []

    def between(self, start_ms: int, end_ms: int) -> tuple[list[Incident], list[Incident]]:
        """Give the incidents that run in [start, end), and those of them that begin there."""
        self._running = [incident for incident in self._running if incident.end_ms > start_ms]
        beginning: list[Incident] = []
        while self._next is not None and self._next.start_ms < end_ms:
            beginning.append(self._next)
            self._next = next(self._coming, None)
        self._running += beginning
        return self._running, beginning


def _grid(plan: Plan) -> Iterator[tuple[int, int]]:
    """Cut event time into stretches of about as many events as are cheap to handle at once."""
    step_ms = int(1000 * _CHUNK_EVENTS / plan.rate_per_s) // _CHUNK_MS_MIN * _CHUNK_MS_MIN
    step_ms = min(max(step_ms, _CHUNK_MS_MIN), _CHUNK_MS_MAX)
    start_ms = plan.start_ms
    while plan.end_ms is None or start_ms < plan.end_ms:
        end_ms = start_ms + step_ms if plan.end_ms is None else min(start_ms + step_ms, plan.end_ms)
        yield start_ms, end_ms
        start_ms = end_ms


def _rng(plan: Plan, purpose: int, number: int) -> np.random.Generator:
    """Give a stream of its own to each purpose and chunk, so that more dirt leaves the world as it is."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(plan.seed, spawn_key=(purpose, number))))


def _split(held: list[Requests], end_ms: int) -> tuple[Requests, list[Requests]]:
    """Part the requests that arrived before `end_ms`, in order of arrival, from those that are still on their way."""
    waiting = drawing.concat(held)
    order = waiting.arrival_ms.argsort(kind="stable")
    arrived = int(np.count_nonzero(waiting.arrival_ms < end_ms))
    return waiting.take(order[:arrived]), [waiting.take(order[arrived:])]


def _chunks(start_ms: int, records: Records, truths: list[Records]) -> Iterator[Chunk]:
    """Cut a stretch where an incident begins, so that its truth is sent when it does."""
    done = 0
    truth = Records()
    for following in truths:
        position = bisect_left(records.arrival_ms, following.arrival_ms[0], lo=done)
        yield Chunk(start_ms, truth, records.part(done, position))
        done, truth, start_ms = position, following, following.arrival_ms[0]
    yield Chunk(start_ms, truth, records.part(done, len(records)))


def _truths(beginning: list[Incident], world: World, end_ms: int | None) -> list[Records]:
    """Encode the truth of incidents, one record each, keyed by their scenario id."""
    truths = [incident.truth(world, end_ms) for incident in beginning]
    return [
        Records(
            values=[msgspec.json.encode(truth)],
            keys=[truth["scenario_id"].encode()],
            partitions=[0],
            arrival_ms=[truth["start_ms"]],
            contents=np.zeros((1, len(CONTENTS)), dtype=np.int32),
        )
        for truth in truths
    ]

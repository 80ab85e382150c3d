"""Simulated worlds run through the flow: what happened, what the windows showed, and what was told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from evaluation.simulated_flow import Batch, intake_rules, run_flow
from evaluation.window_table import table_of
from local.demo.matching import Alert, Incident, grace_after, judge
from operators.kernels.archive_rows import NO_ROWS, ArchivedEvent, CopiedKeys, archive_rows
from operators.kernels.decode import EventDecoder
from operators.kernels.intake import NO_TIME_MS, take
from operators.kernels.series import SeriesTable
from simulator.incidents import LatencyStep, Surge
from simulator.stream import Plan, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from flows.settings import Settings
    from local.demo.matching import Judgement
    from operators.kernels.frames import Transition
    from simulator import incidents as happening
    from simulator.world import World

PARTITIONS: Final = 4

START_MS: Final = 1_772_434_800_000
"""2026-03-02 07:00 UTC: a Monday morning, always the same one, so that a seed decides everything."""

SHIFT_FACTOR: Final = 2.5
"""How many times slower a service gets that is deployed badly and stays so."""

_SHIFT_EVERY_MS: Final = 1_200_000
_SURGE_EVERY_MS: Final = 900_000
_SURGE_MS: Final = 420_000
_CALM_MS: Final = 1_800_000
_ROOM_MS: Final = 600_000
_LATEST_MS: Final = 120_000
"""No event of the simulator is later than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodic(Plan):
    """A plan with a story of its own, told again and again after a calm beginning.

    Attributes:
        calm_ms: How long nothing happens at first.
    """

    calm_ms: int = _CALM_MS

    def times(self, every_ms: int) -> range:
        """Give times after the calm, with some room before the end."""
        return range(self.start_ms + self.calm_ms, self.start_ms + (self.duration_ms or 0) - _ROOM_MS, every_ms)


class Deployments(Episodic):
    """A world in which one service after the other gets slower and stays so, as after a deployment nobody reverts."""

    def incidents(self, world: World) -> Iterator[happening.Incident]:
        """Give the shifts, each on a service of its own, to the end of the recording."""
        end_ms = self.start_ms + (self.duration_ms or 0)
        for service, start_ms in zip(world.services, self.times(_SHIFT_EVERY_MS), strict=False):
            yield LatencyStep(start_ms=start_ms, end_ms=end_ms, services=(service,), factor=SHIFT_FACTOR)


class Surges(Episodic):
    """A world that has more requests now and then, and bears them well: nobody should be woken."""

    def incidents(self, world: World) -> Iterator[happening.Incident]:
        """Give surges as strong as those of the random scenario, which has few of them: they need all services."""
        rng = np.random.default_rng([self.seed, 0x5066E])
        for start_ms in self.times(_SURGE_EVERY_MS):
            factor = round(float(rng.uniform(1.3, 1.8)), 2)
            yield Surge(start_ms=start_ms, end_ms=start_ms + _SURGE_MS, services=world.services, factor=factor)


def plans(
    seed: int, *, duration_ms: int, incidents_per_hour: float, rate_per_s: float, warm_up_ms: int = 0
) -> dict[str, Plan]:
    """Plan the recordings of one seed: incidents at random, surges alone, and shifts that last.

    Args:
        seed: Fixes all of them.
        duration_ms: Length of each.
        incidents_per_hour: Of the random one, about: a service that had an incident rests before the next.
        rate_per_s: Events per second.
        warm_up_ms: How much of the beginning is not judged; surges and shifts wait for its end.
    """
    both: dict[str, Any] = {"start_ms": START_MS, "duration_ms": duration_ms, "rate_per_s": rate_per_s, "seed": seed}
    calm_ms = max(_CALM_MS, warm_up_ms)
    return {
        "random": Plan(scenario="random", incidents_per_hour=incidents_per_hour, **both),
        "surges": Surges(calm_ms=calm_ms, **both),
        "deployments": Deployments(calm_ms=calm_ms, **both),
    }


@dataclass(frozen=True, slots=True)
class Run:
    """One recording and what the flow said of it.

    Attributes:
        plan: What was recorded.
        incidents: What went wrong in it.
        table: Scored windows, as `window_table` has them.
        transitions: What went to the alerts topic.
        slide_ms: Time between window ends.
        length_ms: Length of a window.
        warm_up_ms: How much of the beginning is not judged.
        events: How many events there were.
    """

    plan: Plan
    incidents: tuple[Incident, ...]
    table: pl.DataFrame
    transitions: tuple[Transition, ...]
    slide_ms: int
    length_ms: int
    warm_up_ms: int
    events: int

    @property
    def hours(self) -> float:
        """Length of what is judged."""
        return ((self.plan.duration_ms or 0) - self.warm_up_ms) / 3_600_000

    @property
    def alerts(self) -> list[Alert]:
        """The flow's own alerts."""
        return alerts_of(self.transitions)

    def judge(self, alerts: Iterable[Alert]) -> Judgement:
        """Judge the flow's alerts, or those of somebody else on the same recording, after the warm-up."""
        now_ms = self.plan.start_ms + (self.plan.duration_ms or 0)
        grace_ms = grace_after(length_ms=self.length_ms, slide_ms=self.slide_ms)
        whole = judge(self.incidents, alerts, now_ms=now_ms, grace_ms=grace_ms)
        return replace(
            whole,
            outcomes=tuple(one for one in whole.outcomes if one.incident.start_ms >= self.judged_from_ms),
            false_alerts=tuple(self.heard(whole.false_alerts)),
        )

    def heard(self, alerts: Iterable[Alert]) -> list[Alert]:
        """Keep the alerts that fired after the warm-up."""
        return [alert for alert in alerts if alert.fired_ms > self.judged_from_ms]

    @property
    def judged_from_ms(self) -> int:
        """Event time at which the warm-up ends."""
        return self.plan.start_ms + self.warm_up_ms


def run(
    plan: Plan, settings: Settings, *, warm_up_ms: int = 0, on_progress: Callable[[int], None] = lambda _: None
) -> Run:
    """Record a world and run it through the flow.

    Args:
        plan: What to record; it must have an end.
        settings: Of the flow.
        warm_up_ms: How much of the beginning is not to be judged.
        on_progress: Told the event time that is reached, in milliseconds.
    """
    out = run_flow(batches_of(plan, on_progress), partitions=PARTITIONS, settings=settings)
    return Run(
        plan=plan,
        incidents=tuple(incidents_of(plan)),
        table=table_of([frame for frame in out.frames if not frame.windows.cut_short]),
        transitions=tuple(out.transitions),
        slide_ms=settings.window.slide_ms,
        length_ms=settings.window.length_ms,
        warm_up_ms=warm_up_ms,
        events=out.vitals.events["accepted"],
    )


def incidents_of(plan: Plan) -> Iterator[Incident]:
    """Give the truth of a recording."""
    world = plan.world()
    for happened in plan.incidents(world):
        truth = happened.truth(world, plan.end_ms)
        yield Incident(
            name=truth["scenario_id"],
            kind=truth["kind"],
            start_ms=truth["start_ms"],
            end_ms=truth["end_ms"],
            services=tuple(truth["services"]),
            signals=tuple(truth["signals"]),
            page=truth["page"],
            endpoints=tuple(truth["endpoints"]),
            description=truth["description"],
        )


def alerts_of(transitions: Iterable[Transition]) -> list[Alert]:
    """Put the two records of each episode together."""
    found: dict[tuple[str, int], Alert] = {}
    for change in transitions:
        key = (change.fingerprint, change.starts_at_ms)
        if change.status == "firing":
            found[key] = Alert.of(change)
        elif key in found:
            found[key] = replace(found[key], resolved_ms=change.window_end_ms)
    return list(found.values())


def pages_of(alerts: Sequence[Alert]) -> list[tuple[Alert, ...]]:
    """Group alerts as a person is told of them: what opens while another alert of the service is open is no new page.

    Returns:
        The alerts of each page, by time.
    """
    pages: list[list[Alert]] = []
    open_until: dict[str, float] = {}
    current: dict[str, list[Alert]] = {}
    for alert in sorted(alerts, key=lambda one: (one.fired_ms, one.service, one.endpoint, one.alertname)):
        until_ms = float("inf") if alert.resolved_ms is None else alert.resolved_ms
        if alert.fired_ms < open_until.get(alert.service, 0):
            current[alert.service].append(alert)
        else:
            current[alert.service] = [alert]
            pages.append(current[alert.service])
            open_until[alert.service] = 0
        open_until[alert.service] = max(open_until[alert.service], until_ms)
    return [tuple(page) for page in pages]


def events_of(plan: Plan, settings: Settings, *, from_ms: int, until_ms: int) -> pl.DataFrame:
    """Give the events of a stretch of event time as `flows.archive` would keep them.

    Args:
        plan: What is recorded.
        settings: Of the flow: what is accepted.
        from_ms: First event time.
        until_ms: Event time that is no longer in.

    Returns:
        Rows with the columns of the archive, in the order of their arrival.
    """
    rules, events = intake_rules(settings), settings.events
    decoder = EventDecoder(max_bytes=events.max_bytes, event_type=ArchivedEvent)
    table, tops = SeriesTable(1), dict.fromkeys(range(PARTITIONS), NO_TIME_MS)
    copied = CopiedKeys(events.fields, events.timestamp_unit, events.latency_unit)
    offsets, parts = dict.fromkeys(range(PARTITIONS), 0), [NO_ROWS]
    for batch in batches_of(plan):
        number, first = batch.partition, offsets[batch.partition]
        got = take(batch.values, batch.received_ms, tops[number], rules=rules, table=table, decoder=decoder)
        tops[number], offsets[number] = got.top_ms, first + len(batch.values)
        if min(tops.values()) > until_ms + _LATEST_MS:
            break
        if from_ms < got.top_ms:
            places = range(first, offsets[number])
            rows = archive_rows(batch.values, places, batch.received_ms, number, got, copied=copied)
            parts += [] if rows is None else [rows]
    return pl.concat(parts).filter(pl.col("timestamp_ms").is_between(from_ms, until_ms, closed="left"))


def batches_of(plan: Plan, on_progress: Callable[[int], None] = lambda _: None) -> Iterator[Batch]:
    """Give the log of a recording, partition by partition within each stretch of event time.

    Args:
        plan: What is recorded.
        on_progress: Told the event time that is reached, in milliseconds.
    """
    for chunk in record(plan, PARTITIONS):
        records = chunk.records
        values: list[list[bytes | None]] = [[] for _ in range(PARTITIONS)]
        arrival_ms: list[list[int]] = [[] for _ in range(PARTITIONS)]
        for value, partition, at_ms in zip(records.values, records.partitions, records.arrival_ms, strict=True):
            values[partition].append(value)
            arrival_ms[partition].append(at_ms)
        for partition in range(PARTITIONS):
            if values[partition]:
                yield Batch(partition, values[partition], arrival_ms[partition])
        on_progress(chunk.start_ms)

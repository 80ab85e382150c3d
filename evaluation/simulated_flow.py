"""The flow without a broker: its own operators, under Bytewax, from the records of a log to scored windows and alerts.

What the Kafka source does with a record and what the sinks do with a row stays: records go through the flow's intake,
and rows leave as the flow's frames. Kafka alone is left out, and with it everything that is not a function of the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from flows.alert_settings import policy_of
from flows.detection_settings import scoring_of
from operators.alert import AlertFrame, alert
from operators.census import census
from operators.kernels.decode import EventDecoder
from operators.kernels.intake import NO_TIME_MS, IntakeRules, take
from operators.kernels.series import SeriesTable
from operators.kernels.watermarks import ACTIVE, ENDED, Mark, Marks
from operators.kernels.window_rules import WindowRules
from operators.score import score
from operators.shard import EventFrame, shard
from operators.vitals import Vitals
from operators.window import window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flows.settings import Settings
    from operators.kernels.frames import ScoredFrame, Transition

_LONE_SOURCE: Final = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition.

    Attributes:
        partition: Number of the partition.
        values: Values of the records, in log order.
        received_ms: Kafka timestamp of each of them.
    """

    partition: int
    values: Sequence[bytes | None]
    received_ms: Sequence[int]


@dataclass(slots=True)
class Outcome:
    """What the flow made of a log.

    Attributes:
        frames: Scored windows, one frame for each shard and window end, by window end.
        transitions: What went to the alerts topic, by window end.
        vitals: What was counted.
    """

    frames: list[ScoredFrame] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    vitals: Vitals = field(default_factory=lambda: Vitals("anomaly", "events"))


def run_flow(batches: Iterable[Batch], *, partitions: int, settings: Settings) -> Outcome:
    """Run a log through the operators of the anomaly flow.

    Args:
        batches: The log; each partition in its order, read once, as the flow asks for it.
        partitions: How many partitions the log has. All of them must bring events or heartbeats now and then, or their
            windows wait for the end of the log.
        settings: Those of the flow.

    Returns:
        Everything that the flow would have written, and what it counted. Windows that the log doesn't complete are
        closed at its end, and are marked as cut short.
    """
    span, out = settings.window, Outcome()
    rules = WindowRules(span.length_ms, span.slide_ms, span.series_ttl_ms, span.max_series)
    scored: list[tuple[str, ScoredFrame]] = []
    told: list[tuple[str, AlertFrame]] = []

    graph = Dataflow("anomaly")
    source = log_source(batches, partitions=partitions, settings=settings, vitals=out.vitals)
    events = op.input("events", graph, source)
    verdicts = census("census", events, rules=rules, shards=span.shards, vitals=out.vitals)
    windows = window("window", shard("shard", events, shards=span.shards), verdicts, rules=rules, vitals=out.vitals)
    scores = score("score", windows, config=scoring_of(settings), rules=rules, vitals=out.vitals)
    op.output("scored", scores, TestingSink(scored))
    op.output("told", alert("alert", scores, config=policy_of(settings), vitals=out.vitals), TestingSink(told))
    run_main(graph)  # type: ignore[no-untyped-call]

    out.frames = [frame for _, frame in sorted(scored, key=lambda item: (item[1].windows.window_end_ms, item[0]))]
    changes = [(change.window_end_ms, key, change) for key, frame in told for change in frame.transitions]
    out.transitions = [change for *_, change in sorted(changes, key=lambda item: item[:2])]
    return out


def log_source(
    batches: Iterable[Batch], *, partitions: int, settings: Settings, vitals: Vitals
) -> TestingSource[EventFrame]:
    """Make a source of a log that gives what the Kafka source would give, for any flow.

    Args:
        batches: The log; each partition in its order, read once.
        partitions: How many partitions the log has.
        settings: Those of the flow.
        vitals: Where events are counted.
    """
    return TestingSource(_frames(batches, partitions, settings, vitals))


def intake_rules(settings: Settings) -> IntakeRules:
    """Give the rules by which the source accepts events."""
    span = settings.window
    return IntakeRules(span.slide_ms, span.allowed_lateness_ms, settings.events.max_future_ms)


def _frames(batches: Iterable[Batch], partitions: int, settings: Settings, vitals: Vitals) -> Iterator[EventFrame]:
    """Take in one batch after the other as the source does, and tell of event time as it goes on."""
    rules = intake_rules(settings)
    decoder = EventDecoder(max_bytes=settings.events.max_bytes)
    table = SeriesTable(settings.window.shards)
    tops = dict.fromkeys(range(partitions), NO_TIME_MS)

    def news(of: Iterable[int], mode: str) -> Marks:
        marks = tuple(Mark(number, rules.frontier(tops[number]), tops[number], mode) for number in of)
        return Marks(_LONE_SOURCE, 1, marks)

    yield EventFrame(None, table.places(), None, news(tops, ACTIVE))
    for batch in batches:
        before_ms = tops[batch.partition]
        got = take(batch.values, batch.received_ms, before_ms, rules=rules, table=table, decoder=decoder)
        tops[batch.partition] = got.top_ms
        vitals.took(batch.partition, got, batch.received_ms[-1], rules.allowed_lateness_ms)
        crossed = rules.frontier(before_ms) != rules.frontier(got.top_ms)
        sightings = table.untold(got.columns.code, got.columns.pane)
        yield EventFrame(got.columns, table.places(), sightings, news([batch.partition], ACTIVE) if crossed else None)
    yield EventFrame(None, table.places(), None, news(tops, ENDED))

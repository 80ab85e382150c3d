"""The real operators from events to alert transitions, under Bytewax, fed with a log that is cut up at will."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from operators.alert import AlertFrame, alert
from operators.census import census
from operators.kernels.decode import EventDecoder
from operators.kernels.encode import alert_records, window_records
from operators.kernels.episodes import EpisodeConfig
from operators.kernels.intake import NO_TIME_MS, IntakeRules, take
from operators.kernels.scoring import ScoringConfig
from operators.kernels.series import SeriesTable
from operators.kernels.watermarks import ACTIVE, ENDED, Mark, Marks
from operators.kernels.window_rules import WindowRules
from operators.score import score
from operators.shard import EventFrame, shard
from operators.vitals import Vitals
from operators.window import window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from operators.kernels.frames import ScoredFrame
    from tests.dirty_log import Log

SHARDS = 8
SOURCES = 2
RULES = WindowRules(length_ms=60_000, slide_ms=10_000, series_ttl_ms=600_000, max_series=1000)
INTAKE = IntakeRules(slide_ms=10_000, allowed_lateness_ms=5_000, max_future_ms=60_000)


@dataclass(frozen=True)
class Cut:
    """How a log is cut into batches.

    Attributes:
        seed: Chooses the order in which partitions are read, and the sizes.
        largest: Most records in a batch.
        stop_every: After about so many batches the job is stopped and resumed; 0 for never.
    """

    seed: int = 0
    largest: int = 1_000_000
    stop_every: int = 0


@dataclass
class Output:
    """What a run wrote: the bytes of each record, sorted, because rows are compared and not their order.

    Attributes:
        windows: Scored windows as they go on the wire.
        alerts: Alert transitions, likewise.
        vitals: What was counted.
    """

    windows: list[bytes] = field(default_factory=list)
    alerts: list[bytes] = field(default_factory=list)
    vitals: Vitals = field(default_factory=lambda: Vitals("test", "events"))


@dataclass(frozen=True)
class Watch:
    """What is told to the scorer and to the alerts.

    Attributes:
        scoring: Settings of the scorer.
        policy: Settings of the alerts that are not as usual.
    """

    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    policy: dict[str, Any] = field(default_factory=dict)


class SourceFrames:
    """What the Kafka source makes of its partitions, without Kafka."""

    def __init__(self, number: int, log: Log, rules: IntakeRules) -> None:
        self._number, self._rules = number, rules
        self._left = {p: list(values) for p, values in enumerate(log) if p % SOURCES == number}
        self._tops = dict.fromkeys(self._left, NO_TIME_MS)
        self._table = SeriesTable(SHARDS)
        self._decoder = EventDecoder(max_bytes=1_048_576)

    def frames(self, cut: Cut, received_ms: int) -> list[EventFrame]:
        """Read everything, from the announcement of the partitions to their end."""
        rng = random.Random(f"{cut.seed} {self._number}")
        frames = [self._news(list(self._left), ACTIVE)]
        while any(self._left.values()):
            partition = rng.choice([p for p, values in self._left.items() if values])
            size = rng.randint(1, cut.largest)
            values, self._left[partition] = self._left[partition][:size], self._left[partition][size:]
            frames.append(self._frame(partition, values, received_ms))
        return [*frames, self._news(list(self._left), ENDED)]

    def _frame(self, partition: int, values: Sequence[bytes | None], received_ms: int) -> EventFrame:
        before = self._tops[partition]
        stamps = [received_ms] * len(values)
        got = take(values, stamps, before, rules=self._rules, table=self._table, decoder=self._decoder)
        self._tops[partition] = got.top_ms
        crossed = self._rules.frontier(before) != self._rules.frontier(got.top_ms)
        news = self._news([partition], ACTIVE).news if crossed else None
        sightings = self._table.untold(got.columns.code, got.columns.pane)
        return EventFrame(got.columns, self._table.places(), sightings, news)

    def _news(self, partitions: list[int], mode: str) -> EventFrame:
        tops = [(partition, self._tops[partition]) for partition in partitions]
        marks = tuple(Mark(partition, self._rules.frontier(top), top, mode) for partition, top in tops)
        return EventFrame(None, self._table.places(), None, Marks(self._number, SOURCES, marks))


def _graph(
    inputs: list[list[Any]], rules: WindowRules, watch: Watch, out: Output, scored: list[Any], told: list[Any]
) -> Dataflow:
    graph = Dataflow("chain")
    parts = [op.input(f"events-{n}", graph, TestingSource(frames)) for n, frames in enumerate(inputs)]
    events = op.merge("events", *parts)
    verdicts = census("census", events, rules=rules, shards=SHARDS, vitals=out.vitals)
    windows = window("window", shard("shard", events, shards=SHARDS), verdicts, rules=rules, vitals=out.vitals)
    scores = score("score", windows, config=watch.scoring, rules=rules, vitals=out.vitals)
    usual = EpisodeConfig.for_windows(length_ms=rules.length_ms, slide_ms=rules.slide_ms)
    policy = replace(usual, **watch.policy)
    op.output("scored", scores, TestingSink(scored))
    op.output("told", alert("alert", scores, config=policy, vitals=out.vitals), TestingSink(told))
    return graph


def run_chain(
    log: Log,
    cut: Cut,
    *,
    workers: int = 1,
    rules: WindowRules = RULES,
    received_ms: int,
    recovery: Path | None = None,
    watch: Watch | None = None,
) -> Output:
    """Run a log through the chain.

    Args:
        log: Record values by partition.
        cut: How it is cut up.
        workers: Worker threads.
        rules: Settings of the windows.
        received_ms: Kafka timestamp of every record.
        recovery: An empty directory, for a cut that stops on the way.
        watch: Settings of detection and alerts; the usual ones without.
    """
    out = Output()
    intake = IntakeRules(rules.slide_ms, INTAKE.allowed_lateness_ms, INTAKE.max_future_ms)
    inputs: list[list[Any]] = [list(SourceFrames(n, log, intake).frames(cut, received_ms)) for n in range(SOURCES)]
    stops = 0
    if cut.stop_every and recovery is not None:
        init_db_dir(recovery, 1)  # type: ignore[no-untyped-call]
        stops = _insert_stops(inputs, cut)
    options: dict[str, Any] = {"epoch_interval": timedelta(0)}
    if recovery is not None:
        options["recovery_config"] = RecoveryConfig(recovery, timedelta(0))  # type: ignore[no-untyped-call]
    scored: list[tuple[str, ScoredFrame]] = []
    told: list[tuple[str, AlertFrame]] = []
    for _ in range(stops + 1):
        graph = _graph(inputs, rules, watch or Watch(), out, scored, told)
        if workers == 1:
            run_main(graph, **options)  # type: ignore[no-untyped-call]
        else:
            cluster_main(graph, [], 0, worker_count_per_proc=workers, **options)  # type: ignore[no-untyped-call]
    out.windows = _sorted(window_records([frame for _, frame in scored]).values)
    out.alerts = _sorted(alert_records([t for _, frame in told for t in frame.transitions]).values)
    return out


def _sorted(values: list[bytes | None]) -> list[bytes]:
    return sorted(value for value in values if value is not None)


def _insert_stops(inputs: list[list[Any]], cut: Cut) -> int:
    """Put ends of the input at random places, as many into each source; every one of them ends a job."""
    rng = random.Random(f"stops {cut.seed}")
    stops = min(len(frames) for frames in inputs) // cut.stop_every
    for frames in inputs:
        for at in sorted(rng.sample(range(len(frames)), stops), reverse=True):
            frames.insert(at, TestingSource.EOF())
    return stops

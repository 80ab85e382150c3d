"""Source, shards and tallies without Bytewax, driven by hand."""

from __future__ import annotations

import pickle
import random
from typing import TYPE_CHECKING, Any

from operators.census import CensusState
from operators.kernels.census import Census
from operators.kernels.decode import EventDecoder, TracedEvent
from operators.kernels.intake import NO_TIME_MS, IntakeRules, joined, take
from operators.kernels.resolution import classic_counts
from operators.kernels.series import SeriesTable
from operators.kernels.tally_rows import split_tallies
from operators.kernels.traits import traits_of
from operators.kernels.watermarks import ACTIVE, ENDED, Mark, Marks
from operators.kernels.window_rules import WindowRules
from operators.tally import ShardTallies
from operators.vitals import ShardVitals, Vitals
from tests.dirty_log import START_MS, Log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.kernels.tally_frame import TallyFrame

SHARDS = 4
RULES = WindowRules(length_ms=10_000, slide_ms=10_000, series_ttl_ms=600_000, max_series=1000)
KAFKA_MS = START_MS + 3_600_000


class TallyWorld:
    """The bridge's kernels behind a source with some partitions."""

    def __init__(self, partitions: int, rules: WindowRules = RULES) -> None:
        self.rules = rules
        self.intake = IntakeRules(rules.slide_ms, 5_000, 60_000)
        self.decoder = EventDecoder(max_bytes=1_048_576, event_type=TracedEvent)
        self.table = SeriesTable(SHARDS)
        self.tops = [NO_TIME_MS] * partitions
        self.vitals = Vitals("test", "events")
        self.shards = [ShardTallies(rules, self.vitals, ShardVitals()) for _ in range(SHARDS)]
        self.census = CensusState(Census(rules, SHARDS), rules, {})
        self.frames: list[TallyFrame] = []
        self.mark(range(partitions))

    def feed(self, partition: int, values: Sequence[bytes | None], *reads: int) -> None:
        """Read records of a partition as one frame, whose reads end where `reads` say."""
        columns, traits = [], []
        for low, high in zip([0, *reads], [*reads, len(values)], strict=True):
            part = values[low:high]
            got = take(
                part,
                [KAFKA_MS] * len(part),
                self.tops[partition],
                rules=self.intake,
                table=self.table,
                decoder=self.decoder,
            )
            self.tops[partition] = got.top_ms
            self.vitals.count("late", got.late)
            columns.append(got.columns)
            traits.append(traits_of([], got))
        whole = joined(columns)
        sightings = self.table.untold(whole.code, whole.pane)
        if sightings is not None:
            self.census.step(sightings)
        for shard, rows in split_tallies(whole, self.table.places(), traits):
            self.frames += self.shards[shard].step(pickle.loads(pickle.dumps(rows)) if shard % 2 else rows)
        self.mark([partition])

    def mark(self, partitions: Sequence[int], mode: str = ACTIVE) -> None:
        """Tell how far partitions are."""
        marks = tuple(Mark(p, self.intake.frontier(self.tops[p]), self.tops[p], mode) for p in partitions)
        news = Marks(0, 1, marks)
        for shard in self.shards:
            self.frames += shard.step(news)
        for name, verdict in self.census.step(news):
            self.frames += self.shards[int(name.rpartition("-")[2])].step(verdict)

    def end(self) -> None:
        """End all partitions."""
        self.mark(range(len(self.tops)), ENDED)

    def resume(self) -> None:
        """Stop, and go on from a snapshot."""
        self.shards = [ShardTallies(self.rules, self.vitals, ShardVitals(), shard.to_bytes()) for shard in self.shards]
        self.census = CensusState.from_bytes(self.rules, SHARDS, self.census.to_bytes())
        self.table = SeriesTable(SHARDS)
        self.mark(range(len(self.tops)))

    def run(self, log: Log, seed: int | None = None) -> TallyWorld:
        """Read a whole log, cut up and interrupted as the seed says; at once without one."""
        if seed is None:
            for partition, values in enumerate(log):
                self.feed(partition, values)
        else:
            rng = random.Random(seed)
            left = {partition: list(values) for partition, values in enumerate(log)}
            while any(left.values()):
                partition = rng.choice([number for number, values in left.items() if values])
                size = rng.choice([1, 7, 300])
                self.feed(partition, left[partition][:size])
                left[partition] = left[partition][size:]
                if rng.random() < 0.02:
                    self.resume()
        self.end()
        return self

    def samples(self) -> dict[tuple[Any, ...], Any]:
        """Give all values by what they are of and when, for comparison."""
        found: dict[tuple[Any, ...], Any] = {}
        for frame in self.frames:
            for key, value in samples_of(frame):
                assert key not in found
                found[key] = value
        return found


def samples_of(frame: TallyFrame) -> list[tuple[tuple[Any, ...], Any]]:
    """Spell a frame out."""
    at = frame.pane_end_ms
    names = list(zip(frame.service, frame.endpoint, strict=True))
    rows: list[tuple[tuple[Any, ...], Any]] = []
    for row, name in enumerate(names):
        here = frame.bucket_row == row
        rows += [
            ((at, name, "count"), int(frame.count[row])),
            ((at, name, "sum"), float(frame.sum_s[row])),
            ((at, name, "started"), int(frame.started_ms[row])),
            ((at, name, "native"), (int(frame.schema[row]), *frame.bucket_code[here].tolist())),
            ((at, name, "native counts"), frame.bucket_count[here].tolist()),
            ((at, name, "classic"), classic_counts(frame)[row].tolist()),
        ]
    for row, status, count, started in zip(
        frame.code_row.tolist(),
        frame.code_status.tolist(),
        frame.code_count.tolist(),
        frame.code_started_ms.tolist(),
        strict=True,
    ):
        rows.append(((at, names[row], "code", status), (count, started)))
    rows += [((at, names[one.row], "exemplar"), one) for one in frame.exemplars]
    rows += [((at, (one.service, one.endpoint), "ended"), one.statuses) for one in frame.ended]
    # The number of a row depends on who came first; what is in it does not.
    return [
        (key, (value.latency_us, value.timestamp_ms, value.trace_id)) if key[2] == "exemplar" else (key, value)
        for key, value in rows
    ]

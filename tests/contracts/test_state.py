"""State of every kernel: it leaves as bytes, comes back as it was, is refused when it isn't ours, and stays bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from operators.census import CensusState
from operators.kernels.census import Census
from operators.kernels.codec import StateError, pack
from operators.kernels.episodes import EpisodeConfig, Episodes
from operators.kernels.scoring import Scorer, ScoringConfig
from operators.kernels.sharding import split_by_shard
from operators.kernels.window_rules import WindowRules
from operators.kernels.windows import Windows
from operators.vitals import ShardVitals, Vitals
from operators.window import ShardWindows
from sources import position
from sources.position import Position, Snapshot
from tests.contracts.chain import INTAKE, SHARDS, SOURCES, Cut, SourceFrames
from tests.contracts.storage import envelope, of_next_release
from tests.dirty_log import START_MS, Log, event
from tests.incident_log import incident_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from operators.shard import EventFrame

KAFKA_MS = START_MS + 100_000_000
RULES = WindowRules(length_ms=60_000, slide_ms=10_000, series_ttl_ms=120_000, max_series=400)
POLICY = EpisodeConfig.for_windows(length_ms=RULES.length_ms, slide_ms=RULES.slide_ms)


def windows_from(data: bytes) -> ShardWindows:
    return ShardWindows(RULES, Vitals("test", "events"), ShardVitals(), data)


LOADERS: dict[str, Callable[[bytes], Any]] = {
    "windows": lambda data: Windows.from_bytes(RULES, data),
    "window": windows_from,
    "census": lambda data: Census.from_bytes(RULES, SHARDS, data),
    "census-step": lambda data: CensusState.from_bytes(RULES, SHARDS, data),
    "scorer": lambda data: Scorer.from_bytes(ScoringConfig(), RULES.slide_ms, RULES.length_ms, data),
    "episodes": lambda data: Episodes.from_bytes(POLICY, data),
    "source": position.from_bytes,
}
"""How each kind of state is read."""


def new_windows() -> ShardWindows:
    return ShardWindows(RULES, Vitals("test", "events"), ShardVitals())


@dataclass
class Kernels:
    """Every kernel that has a state, for all shards, one behind the other."""

    census: CensusState = field(default_factory=lambda: CensusState(Census(RULES, SHARDS), RULES, {}))
    windows: list[ShardWindows] = field(default_factory=lambda: [new_windows() for _ in range(SHARDS)])
    scorers: list[Scorer] = field(
        default_factory=lambda: [Scorer(ScoringConfig(), RULES.slide_ms, RULES.length_ms) for _ in range(SHARDS)]
    )
    episodes: list[Episodes] = field(default_factory=lambda: [Episodes(POLICY) for _ in range(SHARDS)])

    def step(self, frame: EventFrame) -> None:
        """Take a frame through all of them."""
        items: list[list[Any]] = [[] for _ in range(SHARDS)]
        if frame.columns is not None:
            for shard, rows in split_by_shard(frame.columns, frame.places):
                items[shard].append(rows)
        for news in (frame.sightings, frame.news):
            for name, verdict in self.census.step(news) if news is not None else ():
                items[int(name.rpartition("-")[2])].append(verdict)
        for shard, of_shard in enumerate(items):
            if frame.news is not None:
                of_shard.append(frame.news)
            for closed in (closed for item in of_shard for closed in self.windows[shard].step(item)):
                self.episodes[shard].step(self.scorers[shard].step(closed))

    def states(self) -> list[bytes]:
        """Take the snapshot of everything."""
        everything: list[Any] = [self.census, *self.windows, *self.scorers, *self.episodes]
        return [state.to_bytes() for state in everything]

    def bytes_held(self) -> int:
        """Tell how large the states are before they are compressed."""
        return sum(_size(state) for state in self.states())


def _size(data: bytes) -> int:
    found = envelope(data)
    inner = sum(_size(value) for value in found.values.values() if isinstance(value, bytes))
    return inner + sum(len(raw) for _, _, _, raw in found.arrays.values()) + len(repr(found.values))


def frames_of(panes: list[Log]) -> list[EventFrame]:
    """Read a log of two partitions, one of each source, in turns."""
    log = [[value for pane in panes for value in pane[partition]] for partition in range(SOURCES)]
    read = [SourceFrames(number, log, INTAKE).frames(Cut(number, 60), KAFKA_MS) for number in range(SOURCES)]
    longest = max(map(len, read))
    return [frames[number] for number in range(longest) for frames in read if number < len(frames)]


@pytest.fixture(scope="module")
def samples() -> dict[str, bytes]:
    """A snapshot of each kind, from the middle of a log."""
    kernels = Kernels()
    for frame in frames_of(incident_log(1, partitions=SOURCES, panes=60)):
        kernels.step(frame)
    largest: dict[str, bytes] = {"source": position.to_bytes(Snapshot({0: Position(7, START_MS)}, "ab"))}
    for data in sorted(kernels.states(), key=len):
        found = envelope(data)
        largest[found.kind] = data
        largest |= {envelope(v).kind: v for v in found.values.values() if isinstance(v, bytes) and v[:2] == data[:2]}
    return largest


@pytest.mark.parametrize("kind", LOADERS)
def test_state_comes_back_as_it_left(samples: dict[str, bytes], kind: str) -> None:
    loaded = LOADERS[kind](samples[kind])
    again = position.to_bytes(loaded) if kind == "source" else loaded.to_bytes()
    assert envelope(again)[:2] == envelope(samples[kind])[:2]
    # Letter by letter, as sets of names are written in any order.
    assert sorted(repr(envelope(again))) == sorted(repr(envelope(samples[kind])))


@pytest.mark.parametrize("kind", LOADERS)
def test_state_of_a_later_release_is_refused(samples: dict[str, bytes], kind: str) -> None:
    version = envelope(samples[kind]).version
    with pytest.raises(StateError, match=rf"`{kind}` version {version + 1}, but this release reads `{kind}` version"):
        LOADERS[kind](of_next_release(samples[kind]))


@pytest.mark.parametrize("kind", LOADERS)
def test_state_of_something_else_or_in_pieces_is_refused(samples: dict[str, bytes], kind: str) -> None:
    good = samples[kind]
    for bad in (pack("other", 1, {}, {}), good[:-1], good[: len(good) // 2], b"", good[:9] + b"?" + good[10:]):
        with pytest.raises(StateError, match=f"`{kind}`"):
            LOADERS[kind](bad)


def churn(panes: int) -> list[Log]:
    """Every pane brings twenty series that nobody has seen before, and none comes back."""
    log: list[Log] = []
    for pane in range(panes):
        at_ms = START_MS + pane * RULES.slide_ms
        names = [(f"s{number % 5}", f"/{pane}/{number}") for number in range(20)]
        log.append([[event(at_ms + 10 * number, *name) for name in names] for number in range(SOURCES)])
    return log


def test_state_is_bounded_by_what_lives_and_not_by_what_has_been() -> None:
    kernels, held = Kernels(), []
    frames = frames_of(churn(240))
    for number, frame in enumerate(frames):
        kernels.step(frame)
        if number in (len(frames) // 3, len(frames) - SOURCES - 1):
            held.append(kernels.bytes_held())
    after_80_panes, after_240_panes = held
    assert after_240_panes < 1.25 * after_80_panes

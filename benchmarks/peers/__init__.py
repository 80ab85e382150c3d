"""What people would use instead: the same windows in Kafka Streams and in Quix Streams, in turns with our flow.

The peers compute windows and nothing else, while our flow scores them and raises alerts as well (ADR 18).
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks.flow_run import FlowRun
from benchmarks.load import SLIDE_MS, Published, publish
from benchmarks.peers.programs import prepare
from benchmarks.processes import BenchmarkError, Child, Usage
from benchmarks.report import Figure, median, spread
from benchmarks.throughput import SINGLE, measure_startup
from cli.log_reader import LogReader

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.cluster import Cluster
    from benchmarks.peers.programs import Peer

QUANTILE_TOLERANCE: Final = 0.025
"""How far two estimates of a P99 may lie apart when each is within 1% of the truth, and some for rounding."""

OPEN_AT_END_MS: Final = 2 * SLIDE_MS
"""How far before the end of the input a window must end, so that a peer has closed it."""

_PEER_TIMEOUT_S: Final = 1_200.0


class Window(msgspec.Struct, gc=False):
    """What is compared of a window record."""

    service: str
    endpoint: str
    window_end_ms: int
    count: int
    errors: int
    p99_ms: float | None


Windows = dict[tuple[str, str, int], Window]


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of a peer, and of our flow on the same topic just before it.

    Attributes:
        ratio: CPU of the peer beside ours.
        right: Share of the peer's windows that are the same as ours.
        missing: How many of our windows with events the peer did not write, of those that have ended.
    """

    ratio: float
    right: float
    missing: int


def run(bench: Bench) -> list[Figure]:
    """Measure every peer, each on as many events as it can read in a few minutes."""
    peers = prepare(bench.cluster.directory, bench.say)
    ours_at_start = measure_startup(bench).flow
    empty = bench.cluster.create("empty")
    figures = []
    for peer in peers:
        bench.say(f"peers: publishing for {peer.name}")
        load = replace(bench.scaled(SINGLE), events=int(bench.events * peer.share))
        published = publish(bench.cluster, load)
        turns = []
        for number in range(bench.runs):
            bench.say(f"peers: {peer.name}, run {number + 1} of {bench.runs}")
            at_start, _ = _peer_to_the_end(bench.cluster, peer, empty)
            turns.append(_turn(bench.cluster, peer, published, at_start, ours_at_start))
        bench.cluster.delete([published.topic])
        figures.append(_figure(peer, published, turns))
    return figures


def agreement(ours: Windows, theirs: Windows, until_ms: int) -> tuple[float, int]:
    """Compare a peer's windows with ours.

    Args:
        ours: Our windows.
        theirs: The peer's; one without events is none.
        until_ms: Windows that end later are not looked at: a peer does not close them at the end of its input.

    Returns:
        The share of the peer's windows that have our counts and our P99, and how many of ours the peer has not.

    Raises:
        BenchmarkError: There is nothing to compare.
    """
    ended = {key: window for key, window in theirs.items() if key[2] <= until_ms}
    if not ended:
        raise BenchmarkError("the peer wrote no window that had ended; there is nothing to compare")
    right = sum(_same(window, ours.get(key)) for key, window in ended.items())
    missing = sum(window.count > 0 and key[2] <= until_ms and key not in theirs for key, window in ours.items())
    return right / len(ended), missing


def _same(theirs: Window, ours: Window | None) -> bool:
    if ours is None or (theirs.count, theirs.errors) != (ours.count, ours.errors):
        return False
    if theirs.p99_ms is None or ours.p99_ms is None:
        return False
    return abs(theirs.p99_ms - ours.p99_ms) <= QUANTILE_TOLERANCE * ours.p99_ms


def _turn(cluster: Cluster, peer: Peer, published: Published, at_start: Usage, ours_at_start: Usage) -> Turn:
    flow = FlowRun(cluster, published.topic)
    try:
        ours = flow.to_the_end().without(ours_at_start)
        theirs, output = _peer_to_the_end(cluster, peer, published.topic)
        until_ms = published.start_ms + published.load.duration_ms - OPEN_AT_END_MS
        right, missing = agreement(_windows(cluster, flow.windows), _windows(cluster, output), until_ms)
        return Turn(theirs.without(at_start).cpu_s / ours.cpu_s, right, missing)
    finally:
        flow.clean()


def _peer_to_the_end(cluster: Cluster, peer: Peer, topic: str) -> tuple[Usage, str]:
    """Run a peer over a topic and return what it used, and its output topic."""
    output = cluster.create(peer.kind)
    program, *arguments = *peer.command, cluster.servers, topic, output, output, str(cluster.directory / output)
    return Child(arguments, {}, program=program).wait(_PEER_TIMEOUT_S), output


def _windows(cluster: Cluster, topic: str) -> Windows:
    decode = msgspec.json.Decoder(Window).decode
    found = {}
    with closing(LogReader(cluster.client, topic)) as reader:
        for _, records in reader.read():
            for record in records:
                window = decode(record.value() or b"")
                found[window.service, window.endpoint, window.window_end_ms] = window
    return found


def _figure(peer: Peer, published: Published, turns: list[Turn]) -> Figure:
    ratios = [turn.ratio for turn in turns]
    wrong = 100 * (1 - min(turn.right for turn in turns))
    note = f"{published.events:,} single events; {spread(ratios)}; {wrong:.1f}% of its windows differ from ours"
    if missing := max(turn.missing for turn in turns):
        note += f", {missing:,} of ours it has not"
    return Figure("peers", f"CPU an event of {peer.name}, beside ours", median(ratios), "x", None, note)

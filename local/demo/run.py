"""Run the demo: start everything, show it, stop everything in order, say what came of it."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console

from local.demo import summary, wording
from local.demo.board import Board
from local.demo.children import GIVE_UP_S, Child
from local.demo.cluster import ANSWER_TIMEOUT_S, Cluster, open_cluster
from local.demo.errors import DemoError
from local.demo.feed import Feed
from local.demo.matching import grace_after
from local.demo.progress import Progress
from local.demo.show import Show
from operators.kernels.scoring import ScoringConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    from local.demo.view import Pace

READY_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.1
SNAPSHOT_EVERY_S: Final = 5

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BEGIN_HOUR: Final = 9
_BEGIN_DAYS_AGO: Final = 2


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may choose.

    Attributes:
        duration_s: Wall time that events flow; None: until Ctrl-C.
        speed: Event time per wall time.
        seed: Of the simulated world.
        picture: Where the view is drawn as it is in the end, as an SVG; None: nowhere.
    """

    duration_s: float | None
    speed: float
    seed: int
    picture: Path | None = None


class Stopped(BaseException):
    """A signal asked for the end while nothing ran yet."""


class StopSignals:
    """Takes SIGINT, SIGTERM and SIGHUP: an exception while starting, a flag to look at later, ignored in the end.

    Attributes:
        received: Whether one came.
        watched: Whether somebody looks at `received`, so that none needs to be raised.
    """

    def __init__(self) -> None:
        self.received = False
        self.watched = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take the signals for as long as the context lasts."""
        earlier = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        first, self.received = not self.received, True
        if first and not self.watched:
            raise Stopped


def run(options: Options, environ: Mapping[str, str]) -> None:
    """Run the demo until its time is over or a signal ends it.

    Args:
        options: What a person chose.
        environ: The environment of this process.

    Raises:
        DemoError: Something broke.
        EmbeddedKafkaError: The embedded Kafka can't be used.
        SettingsError: Settings for a given Kafka are wrong.
    """
    progress, stop = Progress(), StopSignals()
    directory = Path(tempfile.mkdtemp(prefix="tailmark-demo-"))
    try:
        with stop.installed(), open_cluster(environ, directory, progress) as cluster, _blaming_the_broker(cluster):
            board, pace, complaints = _run_on(cluster, options, directory, progress, stop)
    except Stopped:
        progress.say("stopped before events began to flow")
        return
    finally:
        shutil.rmtree(directory / "recovery", ignore_errors=True)
    tell(board, pace)
    progress.say(f"logs: {directory}")
    for complaint in complaints:
        raise DemoError(complaint)


@contextmanager
def _blaming_the_broker(cluster: Cluster) -> Iterator[None]:
    """Say of a Kafka that does not answer first whether it is gone."""
    try:
        yield
    except KafkaException as error:
        cluster.check()
        raise DemoError(f"{cluster.name} no longer answers: {error.args[0].str()}") from error


def tell(board: Board, pace: Pace) -> None:
    """Print the summary on standard output."""
    console = Console(highlight=False)
    console.print()
    console.print(summary.totals(board, pace))
    console.print()
    if board.judgement().outcomes or board.alerts:
        console.print(summary.incidents(board))
        console.print()
    console.print(wording.tally(board.judgement()), style="bold", soft_wrap=True)


def _run_on(
    cluster: Cluster, options: Options, directory: Path, progress: Progress, stop: StopSignals
) -> tuple[Board, Pace, list[str]]:
    """Start the programs, watch them, stop them in order.

    Returns:
        What was seen, where the demo stood when it ended, and complaints about children that did not stop cleanly.
    """
    with ExitStack() as opened:
        with progress.step("starting the flow"):
            flow = _start_flow(cluster, directory)
            opened.callback(flow.stop, GIVE_UP_S)
            _await_topics(cluster, flow)
        with progress.step(f"starting the simulator at {options.speed:g} times real time"):
            simulator = _start_simulator(cluster, options, directory)
            opened.callback(simulator.stop, GIVE_UP_S)
            feed = Feed(cluster.client, cluster.settings.kafka.topics, page_url=cluster.page_url, board=_board(cluster))
            opened.callback(feed.close)
            _await_events(cluster, feed, (flow, simulator))
        show = Show(cluster, feed, (flow, simulator), options)
        stop.watched = True
        pace = show.play(stop)
        with progress.step("stopping the simulator and the flow"):
            # In this order: what was sent is then read, and its alerts are judged.
            complaints = [simulator.stop()]
            feed.settle()
            complaints.append(flow.stop())
    return feed.board, pace, [complaint for complaint in complaints if complaint]


def _start_flow(cluster: Cluster, directory: Path) -> Child:
    recovery = directory / "recovery"
    arguments = ["-m", "bytewax.run", "flows.anomaly", "-r", str(recovery), "-s", str(SNAPSHOT_EVERY_S), "-b", "0"]
    return Child("flow", arguments, environ=cluster.environ, directory=directory)


def _start_simulator(cluster: Cluster, options: Options, directory: Path) -> Child:
    # Always the same hours of a day: the load curve, and with it what is seen, does not depend on when the demo runs.
    begin = datetime.now(UTC).replace(hour=_BEGIN_HOUR, minute=0, second=0, microsecond=0)
    begin -= timedelta(days=_BEGIN_DAYS_AGO)
    arguments = ["-m", "simulator", "--scenario", "demo", "--speed", str(options.speed), "--seed", str(options.seed)]
    return Child("simulator", [*arguments, "--start", begin.isoformat()], environ=cluster.environ, directory=directory)


def _board(cluster: Cluster) -> Board:
    span = cluster.settings.window
    return Board(
        length_ms=span.length_ms,
        slide_ms=span.slide_ms,
        grace_ms=grace_after(length_ms=span.length_ms, slide_ms=span.slide_ms),
        warm_windows=ScoringConfig().warm_windows,
    )


def _await_topics(cluster: Cluster, flow: Child) -> None:
    """Wait until the flow has made the topics that it writes: the last thing it does before it runs.

    Raises:
        DemoError: It ended, or it takes too long.
    """
    names = cluster.settings.kafka.topics
    wanted = {names.windows, names.alerts, names.alerts_state, names.dead_letter}
    admin = AdminClient({**cluster.client})
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not wanted <= set(admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics):
        _check(cluster, (flow,))
        if time.monotonic() > deadline_s:
            raise DemoError(f"the flow did not begin within {READY_TIMEOUT_S:g} s; its log is {flow.log}")
        time.sleep(POLL_S)


def _await_events(cluster: Cluster, feed: Feed, children: tuple[Child, ...]) -> None:
    """Wait until events flow.

    Raises:
        DemoError: A child ended, or it takes too long.
    """
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not feed.sample().sent:
        _check(cluster, children)
        if time.monotonic() > deadline_s:
            logs = " and ".join(str(child.log) for child in children)
            raise DemoError(f"no event was sent within {READY_TIMEOUT_S:g} s; see {logs}")
        time.sleep(POLL_S)


def _check(cluster: Cluster, children: tuple[Child, ...]) -> None:
    for child in children:
        child.check()
    cluster.check()

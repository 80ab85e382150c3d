"""Show the pipeline until time is over: a screen for a person, a line now and then for a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live

from local.demo import summary
from local.demo.errors import DemoError
from local.demo.picture import draw
from local.demo.view import LiveView, Pace

if TYPE_CHECKING:
    from local.demo.children import Child
    from local.demo.cluster import Cluster
    from local.demo.feed import Feed
    from local.demo.run import Options, StopSignals

REDRAW_EVERY_S: Final = 0.25
LINE_EVERY_S: Final = 5.0
POLL_S: Final = 0.05
STALL_S: Final = 30.0
"""Without the first window for so long, beyond the event time that it needs, the demo has failed."""


class Show:
    """The live part.

    Args:
        cluster: Where it happens.
        feed: What is seen.
        children: The flow and the simulator.
        options: What a person chose.
    """

    def __init__(self, cluster: Cluster, feed: Feed, children: tuple[Child, ...], options: Options) -> None:
        self._cluster = cluster
        self._feed = feed
        self._children = children
        self._options = options
        self._begun_s = time.monotonic()
        span = cluster.settings.window
        self._stall_s = STALL_S + (span.slide_ms + span.allowed_lateness_ms) / 1000 / options.speed

    def play(self, stop: StopSignals) -> Pace:
        """Show it until the time is over or a signal came.

        Returns:
            Where it stood in time when it ended.

        Raises:
            DemoError: Something broke.
            EmbeddedKafkaError: The broker ended.
        """
        console = Console(highlight=False)
        if sys.stdout.isatty() and not console.is_dumb_terminal:
            with Live(console=console, screen=True, auto_refresh=False, transient=True) as live:
                while self._goes_on(stop, REDRAW_EVERY_S):
                    live.update(LiveView(self._feed.board, self._pace()), refresh=True)
        else:
            while self._goes_on(stop, LINE_EVERY_S):
                console.print(summary.status_line(self._feed.board, self._pace()), soft_wrap=True)
        pace = self._pace()
        if self._options.picture is not None:
            draw(LiveView(self._feed.board, pace), self._options.picture)
        return pace

    def _goes_on(self, stop: StopSignals, seconds: float) -> bool:
        """Watch for some time, and tell whether the show goes on."""
        until_s = time.monotonic() + seconds
        end_s = self._begun_s + (self._options.duration_s or float("inf"))
        while time.monotonic() < min(until_s, end_s) and not stop.received:
            self._feed.poll(POLL_S)
            self._check()
        return time.monotonic() < end_s and not stop.received

    def _check(self) -> None:
        for child in self._children:
            child.check()
        self._cluster.check()
        if not self._feed.board.windows and time.monotonic() - self._begun_s > self._stall_s:
            sent = self._feed.board.vitals.sent
            logs = " and ".join(str(child.log) for child in self._children)
            raise DemoError(f"no window was closed within {self._stall_s:.0f} s of {sent:,} events; see {logs}")

    def _pace(self) -> Pace:
        return Pace(time.monotonic() - self._begun_s, self._options.duration_s, self._options.speed)

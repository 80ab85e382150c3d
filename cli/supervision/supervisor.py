"""Keeps a cluster running: starts it, restarts all of it when one process dies or hangs, drains it on a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from cli.supervision.cluster import BYTEWAX_PREFIX, Cluster, how
from cli.supervision.watchdog import Limits, Pulse, Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.supervision.cluster import Child, Plan
    from cli.supervision.log_lines import Log
    from cli.supervision.restarts import Restarts

EXIT_CLEAN: Final = 0
EXIT_FAILURE: Final = 1
EXIT_BAD_SETTINGS: Final = 2

SECOND_SIGNAL_AFTER_S: Final = 1.0
"""A signal that follows another sooner is the same wish: some tools send it to the process and to its group."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class Supervisor:
    """Runs one cluster until it ends, a signal ends it, or it can't be kept running.

    Attributes:
        plan: What to run.
        restarts: How often it may be started again.
        limits: When it stands still.
        stop_s: How long a drain may take before the processes are killed.
        log: Where it is written down.
    """

    plan: Plan
    restarts: Restarts
    limits: Limits
    stop_s: float
    log: Log
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _stop_asked_s: float = 0.0

    async def run(self) -> int:
        """Run the cluster; must be called in the main thread, which the processes are tied to.

        Returns:
            The exit code: 0 for a clean end, 1 when it can't be kept running or had to be killed, 2 when it does not
            run with these settings.
        """
        self._warn_of_variables()
        with self._signals():
            while True:
                code = await self._run_once()
                if code is None:
                    code = await self._before_restart()
                if code is not None:
                    return code

    async def _run_once(self) -> int | None:
        """Run one start of the cluster to its end.

        Returns:
            The exit code; None when it should be started again. No process is left either way.
        """
        began_s = time.monotonic()
        try:
            cluster = await Cluster.start(self.plan, os.environ, self.log)
        except OSError as error:
            self.log.say(f"the processes can't be started: {error.strerror or error}", level="error")
            return None
        pids = {child.number: child.pid for child in cluster.children}
        listed = ", ".join(f"{number} (pid {pid})" for number, pid in pids.items())
        self.log.say(f"started flow {self.plan.flow}, process {listed}", flow=self.plan.flow, pids=list(pids.values()))
        watchdog = Watchdog(self._pulses(cluster), self.limits)
        try:
            return await self._attend(cluster, watchdog, began_s)
        finally:
            await cluster.kill()

    def _pulses(self, cluster: Cluster) -> list[Pulse]:
        pulses = []
        for child, (host, port) in zip(cluster.children, self.plan.pages, strict=True):
            pulse = Pulse(str(child), host, port)
            child.ended.add_done_callback(partial(_retire, pulse))
            pulses.append(pulse)
        return pulses

    async def _attend(self, cluster: Cluster, watchdog: Watchdog, began_s: float) -> int | None:
        """Wait for the first thing that happens to a cluster, and deal with it."""
        ended = asyncio.create_task(cluster.ended())
        stalled = asyncio.create_task(watchdog.until_stalled())
        stop = asyncio.create_task(self._stop.wait())
        up = asyncio.create_task(watchdog.began.wait())
        up.add_done_callback(lambda task: None if task.cancelled() else self._say_up(began_s))
        try:
            await asyncio.wait({ended, stalled, stop}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return self._judge(cluster)
            if stop.done():
                return await self._drain(cluster, watchdog, ended)
            for reason in stalled.result():
                self.log.say(f"the cluster stands still: {reason}", level="error")
            return None
        finally:
            for task in (ended, stalled, stop, up):
                task.cancel()

    def _say_up(self, began_s: float) -> None:
        pages = [f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics" for host, port in self.plan.pages]
        took_s = round(time.monotonic() - began_s, 1)
        self.log.say(
            f"took the first snapshot after {took_s} s; pages: {', '.join(pages)}", seconds=took_s, pages=pages
        )

    def _judge(self, cluster: Cluster) -> int | None:
        """Decide what follows from the exit codes of processes that nobody asked to end."""
        ended = [(child, child.code) for child in cluster.children if child.code is not None]
        for child, code in ended:
            if code:
                self._say_ended(child, code)
        if any(code == EXIT_BAD_SETTINGS for _, code in ended):
            return EXIT_BAD_SETTINGS
        if any(code for _, code in ended):
            return None
        self.log.say("all processes ended by themselves, as they should")
        return EXIT_CLEAN

    async def _drain(self, cluster: Cluster, watchdog: Watchdog, ended: asyncio.Task[None]) -> int:
        """End a cluster at the wish of a signal, with a snapshot."""
        if not watchdog.answering:
            # No process reads before all are there, and one that is on its way does not know the signal yet.
            self.log.say("stopped before anything was read")
            return EXIT_CLEAN
        self.log.say(f"stopping: the processes take a snapshot, for {self.stop_s:g} s at most; a second signal kills")
        cluster.drain()
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({ended, hurry}, timeout=self.stop_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        left = cluster.running()
        for child in cluster.children:
            if child.code:
                self._say_ended(child, child.code)
        if not left and not any(child.code for child in cluster.children):
            self.log.say(f"stopped with a snapshot after {time.monotonic() - self._stop_asked_s:.1f} s")
            return EXIT_CLEAN
        killed = f"; killed {', '.join(map(str, left))}" if left else ""
        self.log.say(
            f"stopped without the last snapshot{killed}; nothing is lost: the next start goes back to the one before",
            level="error",
        )
        return EXIT_FAILURE

    async def _before_restart(self) -> int | None:
        """Wait before the next start.

        Returns:
            The exit code when there is none: too many restarts, or a signal.
        """
        delay_s = self.restarts.next_delay_s(time.monotonic())
        if delay_s is None:
            most, within_s = self.restarts.most, self.restarts.within_s
            self.log.say(f"gave up: there were {most} restarts within {within_s:g} s already", level="error")
            return EXIT_FAILURE
        count = f"{self.restarts.recent} of {self.restarts.most} within {self.restarts.within_s:g} s"
        self.log.say(
            f"starting all processes again in {delay_s:g} s, restart {count}", level="warning", delay_seconds=delay_s
        )
        try:
            await asyncio.wait_for(self._stop.wait(), delay_s)
        except TimeoutError:
            return None
        self.log.say("stopped while no process ran")
        return EXIT_CLEAN

    def _say_ended(self, child: Child, code: int) -> None:
        self.log.say(f"{child} {how(code)}", level="error", process=child.number, pid=child.pid, exit_code=code)

    def _warn_of_variables(self) -> None:
        found = sorted(key for key in os.environ if key.startswith(BYTEWAX_PREFIX))
        if found:
            self.log.say(
                f"not passed on, for they contradict a supervised cluster: {', '.join(found)}", level="warning"
            )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take SIGTERM, SIGINT and SIGHUP for as long as the context lasts."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        now_s = time.monotonic()
        if not self._stop.is_set():
            self._stop_asked_s = now_s
            self.log.say(f"got {number.name}")
            self._stop.set()
        elif now_s - self._stop_asked_s >= SECOND_SIGNAL_AFTER_S:
            self.log.say(f"got {number.name} again", level="warning")
            self._hurry.set()


def _retire(pulse: Pulse, _ended: asyncio.Task[int]) -> None:
    pulse.gone = True

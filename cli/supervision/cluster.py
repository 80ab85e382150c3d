"""The processes of one start of a cluster: each tied to the supervisor, its output relayed line by line."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cli.supervision import tether
from cli.supervision.log_lines import Entries
from local.ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cli.supervision.log_lines import Log

BYTEWAX_PREFIX: Final = "BYTEWAX_"
"""Variables that Bytewax reads; they would contradict what the supervisor tells each process."""

_READ_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        flow: Name of the flow: `anomaly` is the module `flows.anomaly`.
        processes: How many processes.
        recovery: Recovery directory.
        snapshot_interval_s: Length of an epoch.
        backup_interval_s: How long superseded snapshots are kept.
        pages: Host and port of the page of each process.
    """

    flow: str
    processes: int
    recovery: Path
    snapshot_interval_s: int
    backup_interval_s: int
    pages: Sequence[tuple[str, int]]

    def command(self, process: int, addresses: Sequence[str]) -> list[str]:
        """Build the command of one process.

        Args:
            process: Its number.
            addresses: Where the processes meet, in order; used when there are several.
        """
        state = ["-r", str(self.recovery), "-s", str(self.snapshot_interval_s), "-b", str(self.backup_interval_s)]
        place = ["-i", str(process), "-a", ";".join(addresses)] if self.processes > 1 else []
        return [sys.executable, "-m", "bytewax.run", f"flows.{self.flow}", *state, *place]


class Child:
    """One process of a cluster."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, log: Log) -> None:
        """Relay what a process writes.

        Args:
            number: Its number in the cluster.
            process: Started, with a pipe for its output.
            log: Where its lines go.
        """
        self.number = number
        self.pid = process.pid
        self._process = process
        self._log = log
        self.ended = asyncio.create_task(self._attend())

    @property
    def code(self) -> int | None:
        """Its exit code, minus the signal that killed it; None while it runs."""
        return self.ended.result() if self.ended.done() else None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        # Not by asyncio's own way: that one may reap the process, and its exit code is lost to who waits for it.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _attend(self) -> int:
        """Relay all that it writes, and wait for the end."""
        pipe, entries = self._process.stdout, Entries()
        assert pipe is not None
        while True:
            data = await pipe.read(_READ_BYTES)
            for entry in entries.feed(data):
                self._log.relay(self.number, self.pid, entry)
            if not data:
                return await self._process.wait()

    def __str__(self) -> str:
        return f"process {self.number} (pid {self.pid})"


class Cluster:
    """Processes that were started together, and can only end together."""

    def __init__(self, children: Sequence[Child]) -> None:
        """Take the processes, in order."""
        self.children = tuple(children)

    @classmethod
    async def start(cls, plan: Plan, environ: Mapping[str, str], log: Log) -> Cluster:
        """Start all processes.

        They get addresses that no earlier start had: what might be left of one can't be taken for a part of this one.

        Args:
            plan: What to run.
            environ: Variables of the processes.
            log: Where their lines go.

        Raises:
            OSError: There is no free port, or no room for a process.
        """
        ports: list[int] = []
        for _ in range(plan.processes):
            ports.append(free_port(ports))
        addresses = [f"{HOST}:{port}" for port in ports]
        environ = {key: value for key, value in environ.items() if not key.startswith(BYTEWAX_PREFIX)}
        children: list[Child] = []
        try:
            for number in range(plan.processes):
                process = await _spawn(plan.command(number, addresses), environ)
                children.append(Child(number, process, log))
        except OSError:
            await cls(children).kill()
            raise
        return cls(children)

    def running(self) -> list[Child]:
        """List the processes that have not ended."""
        return [child for child in self.children if child.code is None]

    async def ended(self) -> None:
        """Wait until all have ended, or one in a way that ends the others."""
        pending = {child.ended for child in self.children}
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() for task in done):
                return

    def drain(self) -> None:
        """Ask all to end with a snapshot; one that was frozen is woken, or it would not hear."""
        for child in self.children:
            child.send(signal.SIGTERM)
            child.send(signal.SIGCONT)

    async def kill(self) -> None:
        """End all at once, and wait until they are gone: what the log holds is not touched by that."""
        for child in self.children:
            child.send(signal.SIGKILL)
        if self.children:
            await asyncio.wait([child.ended for child in self.children])


async def _spawn(command: list[str], environ: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start a process that ends with this one."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**environ, "PYTHONUNBUFFERED": "1"},
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops the others in order.
        start_new_session=True,
    )


def how(code: int) -> str:
    """Say in words how a process ended.

    Args:
        code: Its exit code, minus the signal that killed it.
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"

"""Processes under measurement: the CPU time, wall time and memory of a whole child, from the kernel's own accounts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
POLL_S: Final = 0.01
RUN_TIMEOUT_S: Final = 300.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class BenchmarkError(RuntimeError):
    """A measurement that could not be made; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process, with every child that it waited for, has used.

    Attributes:
        cpu_s: User and system time, seconds.
        wall_s: From its start to its end, seconds.
        peak_bytes: Most resident memory.
    """

    cpu_s: float
    wall_s: float
    peak_bytes: int

    def without(self, startup: Usage) -> Usage:
        """Give what is left when start and end of the process, measured on an empty topic, are taken off."""
        return Usage(self.cpu_s - startup.cpu_s, self.wall_s - startup.wall_s, self.peak_bytes)


class Child:
    """A program that runs beside us."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, program: str = sys.executable
    ) -> None:
        """Start it.

        Args:
            arguments: What follows the program.
            environment: Variables on top of ours.
            program: What is started; our own Python if nothing else is said.
        """
        ours = {name: value for name, value in os.environ.items() if not name.startswith("TAILMARK_")}
        self._name = " ".join(arguments[:3])
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._began_s = time.monotonic()
        self.process = subprocess.Popen(
            [program, *arguments],
            cwd=ROOT,
            env={**ours, **environment},
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
        )

    def wait(self, timeout_s: float = RUN_TIMEOUT_S) -> Usage:
        """Wait for the end.

        Returns:
            What it used.

        Raises:
            BenchmarkError: It failed, or did not end in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                self.kill()
                raise BenchmarkError(f"`{self._name}` did not end within {timeout_s:.0f} s")
            time.sleep(POLL_S)
        wall_s = time.monotonic() - self._began_s
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode:
            raise BenchmarkError(f"`{self._name}` ended with {self.process.returncode}: {self.last_words()}")
        self._stderr.close()
        return Usage(usage.ru_utime + usage.ru_stime, wall_s, usage.ru_maxrss * 1024)

    def last_words(self) -> str:
        """Give the end of what it wrote to stderr, in one line."""
        self._stderr.seek(0)
        return " ".join(self._stderr.read().decode(errors="replace").split())[-500:] or "it said nothing"

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            BenchmarkError: It has ended.
        """
        if self.process.poll() is not None:
            raise BenchmarkError(f"`{self._name}` ended with {self.process.returncode}: {self.last_words()}")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()
        self._stderr.close()

    def cpu_s(self) -> float:
        """Give the CPU time that it has used so far, without children."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def resident_bytes(self) -> int:
        """Give its resident memory now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

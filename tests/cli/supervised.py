"""Run `tailmark run` as an operator does, and read its log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 90.0
STARTED = "started flow"
FIRST_SNAPSHOT = "took the first snapshot"


@dataclass
class Supervised:
    """A supervisor that runs in a process of its own.

    Attributes:
        env: Settings, as `TAILMARK_` variables.
        recovery: Recovery directory.
        options: Further options of `tailmark run`.
        flow: The flow.
    """

    env: Mapping[str, str]
    recovery: Path
    options: tuple[str, ...] = ()
    flow: str = "anomaly"
    lines: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        command = [sys.executable, "-c", "from cli.main import main; main()", "run", self.flow]
        command += ["--recovery-dir", str(self.recovery), "--snapshot-interval", "1", "--log-format", "json"]
        self.process = subprocess.Popen(
            [*command, *self.options],
            cwd=ROOT,
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def said(self, text: str) -> list[dict[str, Any]]:
        """Give the lines of the supervisor that hold a text."""
        return [line for line in list(self.lines) if line["origin"] == "supervisor" and text in line["message"]]

    def until_said(self, text: str, times: int = 1) -> dict[str, Any]:
        """Wait until the supervisor said something so many times; gives the last of these lines."""
        deadline = time.monotonic() + TIMEOUT_S
        while len(self.said(text)) < times:
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)
        return self.said(text)[times - 1]

    def pids(self, start: int = 1) -> list[int]:
        """Wait for a start, and give the processes of it, in order."""
        found: list[int] = self.until_said(STARTED, start)["pids"]
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end by itself; gives the exit code."""
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code


def living(pids: list[int]) -> list[int]:
    """Pick the processes that run: neither gone nor only waiting to be reaped."""
    return [pid for pid in pids if _state(pid) not in {"", "Z", "X"}]


def _state(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def pauses(timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """Give control for as long as something may still become true; then fail."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        yield
        time.sleep(0.02)
    raise AssertionError("it did not come true in time")

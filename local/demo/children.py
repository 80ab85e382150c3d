"""The programs that the demo starts: each on a leash, with a log of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local import leash
from local.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STOP_S: Final = 15.0
"""How long a child may take to stop cleanly before it is killed."""

LEASH_MARGIN_S: Final = 5.0
GIVE_UP_S: Final = 3.0
"""How long it may take when something is broken already, and nobody cares how clean the end is."""

TAIL_LINES: Final = 12

_ROOT: Final = Path(__file__).resolve().parents[2]


class Child:
    """A Python program that ends with this process, however this process ends.

    Args:
        name: What people call it.
        arguments: What follows `python`.
        environ: Its environment.
        directory: Gets its log, `<name>.log`.
    """

    def __init__(self, name: str, arguments: Sequence[str], *, environ: Mapping[str, str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        owner = [str(os.getpid()), str(leash.started_ticks(os.getpid()))]
        pid_file = str(directory / f"{name}.pid")
        leashed = [sys.executable, "-I", "-S", leash.__file__, *owner, pid_file, str(STOP_S)]
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches the demo alone, which stops the others in order.
            self._leash = subprocess.Popen(  # noqa: S603 - no shell, and nothing of it comes from outside
                [*leashed, sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=_ROOT,
                env={**environ, "PYTHONUNBUFFERED": "1"},
            )

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            DemoError: It ended although nobody asked it to.
        """
        code = self._leash.poll()
        if code is not None:
            raise DemoError(f"the {self.name} ended by itself, {_how(code)}; its log is {self.log}{self._last_lines()}")

    def stop(self, timeout_s: float = STOP_S + LEASH_MARGIN_S) -> str | None:
        """Ask it to end, wait for it, and kill it if that takes too long; harmless when it has ended.

        Args:
            timeout_s: How long it may take; longer than the leash gives it means as long as that.

        Returns:
            What went wrong; None when it stopped cleanly.
        """
        self._leash.terminate()
        try:
            code = self._leash.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._leash.kill()  # the kernel ends what it held
            code = self._leash.wait()
        if code == 0:
            return None
        return f"the {self.name} did not stop cleanly, {_how(code)}; its log is {self.log}{self._last_lines()}"

    def _last_lines(self) -> str:
        """Return the end of its log, each line on a line of its own, or nothing when it said nothing."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.rpartition("\r")[2].rstrip() for line in lines if line.strip()]
        return "".join(f"\n  | {line}" for line in said[-TAIL_LINES:])


def _how(code: int) -> str:
    signalled = 128
    return f"killed by signal {code - signalled}" if code > signalled else f"exit code {code}"

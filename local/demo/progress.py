"""Say what takes its time while a person waits, on standard error."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


class Progress:
    """Lines for a person who waits.

    Args:
        stream: Where they go; standard error when None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def say(self, line: str) -> None:
        """Say one thing."""
        self._write(f"{line}\n")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what begins, and how long it took once it is done."""
        begun_s = time.monotonic()
        self._write(f"{what} ...")
        try:
            yield
        except BaseException:
            self._write("\n")
            raise
        self._write(f" {time.monotonic() - begun_s:.1f} s\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

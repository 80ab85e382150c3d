"""The log of a cluster: what the supervisor does and what its processes say, each line with its time and its origin."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

Level = Literal["debug", "info", "warning", "error"]

MAX_LINE_BYTES: Final = 16_384
"""A longer line is cut into pieces of this size."""

MAX_TRACEBACK_LINES: Final = 200
"""The rest of a longer one are lines of their own."""

_OURS: Final = "tailmark: "
_LIBRDKAFKA: Final = re.compile(r"%(\d)\|")
_LEVEL_OF_SEVERITY: Final[tuple[Level, ...]] = ("error",) * 4 + ("warning",) + ("info",) * 2 + ("debug",)
_TRACEBACK: Final = "Traceback (most recent call last):"
# All that Bytewax says, with a traceback of its own insides, whatever went wrong in whichever process of a cluster.
_LOST_OTHERS: Final = "PanicException: Send thread panic"
_WAITING: Final = re.compile(r"worker \d+:\s+error connecting to worker")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


class Log:
    """Writes lines; a reader that went away, or a full disk, must not stop a cluster, so such lines are dropped."""

    def __init__(self, stream: BinaryIO, written_as: LogFormat) -> None:
        """Write to a stream.

        Args:
            stream: Where to. Without a buffer, or what its reader did not take would fail again when Python ends.
            written_as: One JSON object a line for programs, or columns for people.
        """
        self._stream = stream
        self._write = _as_json if written_as is LogFormat.JSON else _as_text

    def say(self, message: str, *, level: Level = "info", **facts: object) -> None:
        """Write a line of the supervisor.

        Args:
            message: For people, lower case without a full stop.
            level: How bad it is.
            facts: What of it a program may want; plain data, not shown to people.
        """
        self._line(self._write(_now(), level, None, message, facts))

    def relay(self, process: int, pid: int, entry: str) -> None:
        """Write what a process of the cluster wrote.

        Args:
            process: Its number.
            pid: Its process id.
            entry: A line without the line end, or a traceback.
        """
        level, message = _level_of(entry)
        self._line(self._write(_now(), level, process, message, {"pid": pid}))

    def _line(self, text: str) -> None:
        data = f"{text}\n".encode(errors="replace")
        with suppress(OSError):
            while data:
                data = data[self._stream.write(data) :]


class Entries:
    """Cuts the bytes of a pipe into lines, and keeps the lines of a traceback together."""

    def __init__(self) -> None:
        """Start empty."""
        self._rest = b""
        self._traceback: list[str] = []

    def feed(self, data: bytes) -> Iterator[str]:
        """Take bytes, and give the entries that they complete; empty lines are left out.

        Args:
            data: What was read; nothing at the end of the pipe, which ends the last entry.

        Yields:
            Lines of at most `MAX_LINE_BYTES`, without the line end, or the lines of a whole traceback.
        """
        for line in self._lines(data):
            if line == _TRACEBACK:
                yield from self._end_traceback()
            if line == _TRACEBACK or self._traceback:
                self._traceback.append(line)
                # The first line that is not indented names the exception.
                goes_on = line == _TRACEBACK or line.startswith(" ")
                if not goes_on or len(self._traceback) >= MAX_TRACEBACK_LINES:
                    yield from self._end_traceback()
            else:
                yield line
        if not data:
            yield from self._end_traceback()

    def _lines(self, data: bytes) -> Iterator[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) >= MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            for start in range(0, len(line), MAX_LINE_BYTES):
                text = line[start : start + MAX_LINE_BYTES].decode(errors="replace").rstrip()
                if text:
                    yield text

    def _end_traceback(self) -> Iterator[str]:
        if self._traceback:
            yield "\n".join(self._traceback)
            self._traceback = []


def _level_of(entry: str) -> tuple[Level, str]:
    """Tell how bad an entry is, by who wrote it: a flow that can't go on, Python, Bytewax, or librdkafka."""
    if entry.startswith(_OURS):
        return "error", entry.removeprefix(_OURS)
    if entry.startswith(_TRACEBACK):
        last = entry.rpartition("\n")[2]
        return "error", f"{last} (a worker failed, or another process is gone)" if _LOST_OTHERS in last else entry
    if _WAITING.match(entry):
        return "debug", entry  # each start has some, until the slowest process listens
    match = _LIBRDKAFKA.match(entry)
    return ("info" if match is None else _LEVEL_OF_SEVERITY[min(int(match[1]), 7)]), entry


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_text(time: str, level: Level, process: int | None, message: str, _facts: dict[str, object]) -> str:
    origin = "supervisor" if process is None else f"process {process}"
    # Bytes of others reach the terminal of whoever reads this, which must not obey them.
    first, *others = (_UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", line) for line in message.split("\n"))
    return "\n    ".join([f"{time} {level:<7} {origin:<10} | {first}", *others])


def _as_json(time: str, level: Level, process: int | None, message: str, facts: dict[str, object]) -> str:
    origin: dict[str, object] = {"origin": "supervisor"} if process is None else {"origin": "flow", "process": process}
    return json.dumps({"timestamp": time, "level": level, **origin, "message": message, **facts})

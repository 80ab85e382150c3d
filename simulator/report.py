"""What a run of the simulator says: a bar for a person, a line now and then for a log, a summary at the end."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from types import TracebackType

    from simulator.publish import Progress as Sent

LINE_EVERY_S: Final = 5.0
"""Time between two lines where standard error is not a terminal."""

_REDRAW_EVERY_S: Final = 0.2


class Reporter:
    """Says on standard error how far publishing got: a bar on a terminal, else a line every few seconds."""

    def __init__(self, start_ms: int, end_ms: int | None) -> None:
        """Prepare a report.

        Args:
            start_ms: Event time at the beginning.
            end_ms: Event time at the end; None when there is none, or it is not known.
        """
        self._console = Console(stderr=True)
        self._start_ms = start_ms
        self._total_ms = None if end_ms is None else max(1, end_ms - start_ms)
        self._begun_s = time.monotonic()
        self._said_s = self._begun_s
        self._said_records = 0
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn() if end_ms is not None else TextColumn(""),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("connecting", total=self._total_ms)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._bar.stop()

    def update(self, sent: Sent) -> None:
        """Say how far it got, when enough time has passed since the last time."""
        now_s = time.monotonic()
        every_s = _REDRAW_EVERY_S if self._console.is_terminal else LINE_EVERY_S
        if now_s - self._said_s < every_s:
            return
        rate = (sent.records - self._said_records) / (now_s - self._said_s)
        self._said_s, self._said_records = now_s, sent.records
        text = f"{sent.records:,} records, {rate:,.0f}/s, event time {clock(sent.event_time_ms)}"
        if sent.incidents:
            text += f", {sent.incidents} incidents"
        if self._console.is_terminal:
            self._bar.update(self._task, description=text, completed=sent.event_time_ms - self._start_ms)
        else:
            self._console.print(text, highlight=False, soft_wrap=True)


def summary(sent: Sent, delivered: int, start_ms: int, elapsed_s: float, *, stopped: bool) -> str:
    """Say in one line what was sent and acknowledged.

    Args:
        sent: What was handed to Kafka.
        delivered: Records that Kafka acknowledged, truth included.
        start_ms: Event time at the beginning.
        elapsed_s: Wall time, seconds.
        stopped: Whether somebody ended it early.
    """
    names = {"late": "of them late", "events": "events", "duplicates": "duplicates", "malformed": "malformed"}
    parts = [f"{sent.of(name):,} {names[name]}" for name in ("events", "late", "duplicates", "malformed")]
    return (
        f"{'stopped: ' if stopped else ''}{delivered:,} records delivered, 0 failed, in {elapsed_s:.1f} s: "
        f"{', '.join(parts)}, {sent.of('heartbeats'):,} heartbeats, {sent.incidents} incidents; "
        f"event time {clock(start_ms)} to {clock(sent.event_time_ms)}"
    )


def clock(time_ms: int) -> str:
    """Write an event time for a person."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

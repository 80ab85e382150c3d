"""A clean stop: on a signal every source ends, Bytewax takes the last snapshot, and the process exits with 0."""

from __future__ import annotations

import signal
import threading


class Drain:
    """A wish to stop, shared by all sources of a process.

    Bytewax takes no last snapshot on a signal by itself; it does when its input ends.
    """

    def __init__(self) -> None:
        """Start without the wish."""
        self._requested = threading.Event()

    @property
    def requested(self) -> bool:
        """Whether sources should end now."""
        return self._requested.is_set()

    def request(self) -> None:
        """Let all sources end at their next batch."""
        self._requested.set()

    def on_signals(self) -> None:
        """Make SIGTERM and SIGINT mean a clean stop; does nothing outside the main thread, where Python can't."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.request())

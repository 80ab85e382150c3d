"""How far event time is complete, over all partitions of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from operators.kernels.intake import NO_TIME_MS

ACTIVE: Final = "active"
IDLE: Final = "idle"
ENDED: Final = "ended"


@dataclass(frozen=True, slots=True)
class Mark:
    """How far one partition is.

    Attributes:
        partition: Number of the partition.
        frontier: First pane that is not complete in this partition.
        top_ms: Highest event time seen in this partition, `NO_TIME_MS` before the first.
        mode: `active`; `idle` at the end of a log that brings nothing; `ended` when the job reads no further.
    """

    partition: int
    frontier: int
    top_ms: int
    mode: str


@dataclass(frozen=True, slots=True)
class Marks:
    """What a source tells every shard, in order with the rows it sends.

    Attributes:
        source: Number of the source.
        sources: How many sources there are, so that a shard knows whom to wait for.
        marks: What changed; the first time after a start, all partitions of the source.
    """

    source: int
    sources: int
    marks: tuple[Mark, ...]


class Watermarks:
    """The marks of all partitions, and the pane up to which they agree that event time is complete.

    Attributes:
        marks: Latest mark of each partition.
    """

    def __init__(self, *, slide_ms: int, panes_in_window: int, marks: dict[int, Mark] | None = None) -> None:
        """Start with nothing known, or resume.

        Args:
            slide_ms: Length of a pane.
            panes_in_window: Panes that a window spans.
            marks: Marks to resume with. Every source must still speak once, because it may have got new partitions.
        """
        self._slide_ms = slide_ms
        self._panes_in_window = panes_in_window
        self._heard: set[int] = set()
        self._sources = 1
        self.marks = marks or {}

    @staticmethod
    def restored(plain: list[tuple[int, int, int, str]]) -> dict[int, Mark]:
        """Make marks of what `plain` gave."""
        return {fields[0]: Mark(*fields) for fields in plain}

    def plain(self) -> list[tuple[int, int, int, str]]:
        """Give the marks as plain data for a snapshot."""
        return [(mark.partition, mark.frontier, mark.top_ms, mark.mode) for mark in self.marks.values()]

    def apply(self, news: Marks) -> None:
        """Replace what is known of the partitions in `news`."""
        self._heard.add(news.source)
        self._sources = news.sources
        for mark in news.marks:
            self.marks[mark.partition] = mark

    def complete(self) -> int | None:
        """Tell up to which pane event time is complete.

        A partition that is idle or has ended holds nothing back. When none is active there is nobody left to wait for:
        when all ended, every window that has opened is over; when some are idle, what ends with the latest pane is.

        Returns:
            The first pane that is not complete; None while some source has not been heard.
        """
        if not self.marks or len(self._heard) < self._sources:
            return None
        active = [mark.frontier for mark in self.marks.values() if mark.mode == ACTIVE]
        if active:
            return min(active)
        top_ms = self.top_ms()
        if top_ms == NO_TIME_MS:
            return None
        ended = all(mark.mode == ENDED for mark in self.marks.values())
        return top_ms // self._slide_ms + (self._panes_in_window if ended else 1)

    def top_ms(self) -> int:
        """Give the highest event time that any partition has brought, `NO_TIME_MS` before the first."""
        return max((mark.top_ms for mark in self.marks.values()), default=NO_TIME_MS)

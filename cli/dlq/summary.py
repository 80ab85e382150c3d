"""What lies in the dead-letter topic, by reason."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from rich.console import RenderableType

    from cli.dlq.letters import Letter
    from cli.dlq.memory import Memory

_SHOWN_BYTES: Final = 120
_MS_PER_S: Final = 1000


@dataclass(slots=True)
class ReasonSummary:
    """Letters of one reason.

    Attributes:
        reason: One word of a closed set.
        stage: Where they failed.
        letters: How many there are.
        replayed: How many of them were sent back.
        first_ms: Kafka timestamp of the earliest rejected record; None when no letter tells one.
        last_ms: Of the latest.
        samples: The latest ones.
    """

    reason: str
    stage: str
    samples: deque[Letter]
    letters: int = 0
    replayed: int = 0
    first_ms: int | None = None
    last_ms: int | None = None

    def add(self, letter: Letter, *, replayed: bool) -> None:
        """Count a letter."""
        self.letters += 1
        self.replayed += replayed
        self.samples.append(letter)
        stamp_ms = letter.source_timestamp_ms
        if stamp_ms is not None:
            self.first_ms = stamp_ms if self.first_ms is None else min(self.first_ms, stamp_ms)
            self.last_ms = stamp_ms if self.last_ms is None else max(self.last_ms, stamp_ms)

    def as_data(self) -> dict[str, Any]:
        """Give plain data for JSON."""
        return {
            "reason": self.reason,
            "stage": self.stage,
            "letters": self.letters,
            "replayed": self.replayed,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "samples": [_sample(letter) for letter in self.samples],
        }


@dataclass(slots=True)
class Summary:
    """Letters by reason.

    Attributes:
        samples: How many of the latest letters of each reason are kept.
        reasons: What there is of each reason.
    """

    samples: int
    reasons: dict[str, ReasonSummary] = field(default_factory=dict)

    def add(self, letters: Iterable[Letter], wanted: Collection[str], memory: Memory) -> None:
        """Count letters.

        Args:
            letters: In log order.
            wanted: Reasons to count; empty for all.
            memory: Which of them were sent back.
        """
        for letter in letters:
            if wanted and letter.reason not in wanted:
                continue
            if letter.reason not in self.reasons:
                self.reasons[letter.reason] = ReasonSummary(letter.reason, letter.stage, deque(maxlen=self.samples))
            replayed = memory.knows(letter.partition, letter.reason, letter.offset)
            self.reasons[letter.reason].add(letter, replayed=replayed)

    def ordered(self) -> list[ReasonSummary]:
        """List the reasons, the most frequent one first."""
        return sorted(self.reasons.values(), key=lambda found: (-found.letters, found.reason))

    def as_data(self) -> dict[str, Any]:
        """Give plain data for JSON."""
        found = self.ordered()
        return {"letters": sum(reason.letters for reason in found), "reasons": [reason.as_data() for reason in found]}


def tables(summary: Summary) -> Group:
    """Lay a summary out for people."""
    found = summary.ordered()
    if not found:
        return Group("no dead letters")
    parts: list[RenderableType] = [_counts(found)]
    for reason in found:
        if reason.samples:
            parts += ["", Text(f"{reason.reason}, the latest of {reason.letters:,}", style="bold"), _samples(reason)]
    return Group(*parts)


def shown(value: bytes | None) -> str:
    """Write the beginning of a value for people: JSON as it is, other bytes escaped."""
    if value is None:
        return "null"
    text = value[:_SHOWN_BYTES].decode(errors="backslashreplace")
    printable = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return printable + ("…" if len(value) > _SHOWN_BYTES else "")


def _counts(found: list[ReasonSummary]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("reason", "stage", "letters", "replayed", "first", "last"):
        table.add_column(column, justify="right" if column in {"letters", "replayed"} else "left", no_wrap=True)
    for reason in found:
        counts = (f"{reason.letters:,}", f"{reason.replayed:,}")
        table.add_row(reason.reason, reason.stage, *counts, _time(reason.first_ms), _time(reason.last_ms))
    return table


def _samples(reason: ReasonSummary) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("topic", "partition", "offset", "item", "message", "value"):
        table.add_column(column, justify="right" if column in {"partition", "offset", "item"} else "left")
    for letter in reason.samples:
        place = (letter.source_partition, letter.source_offset, letter.item)
        numbers = ("" if number is None else str(number) for number in place)
        # What strangers wrote is no markup.
        table.add_row(Text(letter.source_topic), *numbers, Text(letter.message), Text(shown(letter.value)))
    return table


def _sample(letter: Letter) -> dict[str, Any]:
    return {
        "topic": letter.source_topic,
        "partition": letter.source_partition,
        "offset": letter.source_offset,
        "item": letter.item,
        "timestamp_ms": letter.source_timestamp_ms,
        "message": letter.message,
        "value": shown(letter.value),
    }


def _time(stamp_ms: int | None) -> str:
    if stamp_ms is None:
        return ""
    try:
        return datetime.fromtimestamp(stamp_ms / _MS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(stamp_ms)

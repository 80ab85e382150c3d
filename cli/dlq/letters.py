"""Dead letters as they lie in their topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cli.log_reader import LogReader
from sinks.records import EVENT_TIME_HEADER, ID_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sources.record import Record

PREFIX: Final = "dlq."
"""How the names of the headers begin that a flow adds to a rejected record."""

UNKNOWN: Final = "unknown"
"""Reason of a record that no flow of ours wrote."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A rejected record, or an item of one.

    Attributes:
        partition: Where it lies in the dead-letter topic.
        offset: Likewise.
        key: Key of the rejected record.
        value: Its bytes, or those of the item.
        headers: Its own headers.
        stage: Where it failed.
        reason: Why, one word of a closed set; `unknown` when the record is no letter of ours.
        message: Why, for a person.
        source_topic: Where it came from.
        source_partition: Likewise; None where the headers don't say.
        source_offset: Likewise.
        item: Number of the item; None for a whole record.
        source_timestamp_ms: Kafka timestamp of the rejected record; None where the headers don't say.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    stage: str
    reason: str
    message: str
    source_topic: str
    source_partition: int | None
    source_offset: int | None
    item: int | None
    source_timestamp_ms: int | None


def letter_in(record: Record) -> Letter:
    """Read a letter out of a record.

    Args:
        record: Of the dead-letter topic.

    Returns:
        The letter. Its own headers are those that the rejected record had: without ours, which are the last ones, and
        without any that says what was wrong with it.
    """
    headers = list(record.headers() or ())
    for ours in (EVENT_TIME_HEADER, ID_HEADER):
        if headers and headers[-1][0] == ours:
            headers.pop()
    # The last one of a name is that of the latest rejection.
    said = {name.removeprefix(PREFIX): value for name, value in headers if name.startswith(PREFIX)}

    def text(name: str) -> str:
        return (said.get(name) or b"").decode(errors="replace")

    def number(name: str) -> int | None:
        try:
            return int(text(name))
        except ValueError:
            return None

    return Letter(
        partition=record.partition(),
        offset=record.offset(),
        key=record.key(),
        value=record.value(),
        headers=tuple(header for header in headers if not header[0].startswith(PREFIX)),
        stage=text("error.stage"),
        reason=text("error.reason") or UNKNOWN,
        message=text("error.message"),
        source_topic=text("source.topic"),
        source_partition=number("source.partition"),
        source_offset=number("source.offset"),
        item=number("item"),
        source_timestamp_ms=number("source.timestamp_ms"),
    )


def read_letters(client: Mapping[str, Any], topic: str) -> Iterator[list[Letter]]:
    """Read the whole dead-letter topic.

    Args:
        client: How to reach the brokers, in librdkafka's spelling.
        topic: Its name.

    Yields:
        Some letters of one partition, in log order.

    Raises:
        FlowError: It can't be read.
    """
    reader = LogReader(client, topic)
    try:
        for _, records in reader.read():
            yield [letter_in(record) for record in records]
    finally:
        reader.close()

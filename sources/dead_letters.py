"""Rejected records as they leave: bytes, key and headers unchanged, with headers that say where and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sources.record import timestamps_ms_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.kernels.decode import Reject
    from sources.record import Record


_ERROR_HEADERS: Final = ("dlq.error.stage", "dlq.error.reason", "dlq.error.message")


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Rejected records of one partition, in log order, in columns of the same length.

    Attributes:
        partition: Partition they were read from.
        keys: Key of each rejected record.
        values: The rejected bytes: the record's, or the item's when the rest of the record was good.
        ids: Identity of each: topic, partition, offset and item.
        headers: Headers of the record, followed by ours.
        time_ms: Highest event time of the partition.
    """

    partition: int
    keys: list[bytes | None]
    values: list[bytes | None]
    ids: list[bytes]
    headers: list[list[tuple[str, bytes]]]
    time_ms: int


def dead_letters(messages: Sequence[Record], rejects: Sequence[Reject], time_ms: int) -> DeadLetters:
    """Make dead letters of what a batch rejected.

    Args:
        messages: The batch, all of one partition.
        rejects: What is wrong with some of its records or items.
        time_ms: Highest event time of the partition.

    Returns:
        One dead letter for each reject, in the same order.
    """
    topic, partition = messages[0].topic(), messages[0].partition()
    where = (("dlq.source.topic", topic.encode()), ("dlq.source.partition", b"%d" % partition))
    # The same few mistakes are made again and again: their headers are shared.
    why = {
        flaw: (*zip(_ERROR_HEADERS, (text.encode() for text in flaw), strict=True), *where)
        for flaw in {reject.flaw for reject in rejects}
    }
    identity = b"%s|%d|" % (topic.encode(), partition)
    rejected = [messages[reject.record] for reject in rejects]
    offsets = [b"%d" % message.offset() for message in rejected]
    headers = [
        [
            *(message.headers() or ()),
            *why[reject.flaw],
            ("dlq.source.offset", offset),
            ("dlq.source.timestamp_ms", b"%d" % stamp_ms),
        ]
        for message, reject, offset, stamp_ms in zip(
            rejected, rejects, offsets, timestamps_ms_of(rejected), strict=True
        )
    ]
    ids = [identity + offset for offset in offsets]
    for row, reject in enumerate(rejects):
        if reject.item is not None:
            headers[row].append(("dlq.item", b"%d" % reject.item))
            ids[row] += b"|%d" % reject.item
    return DeadLetters(
        partition, [message.key() for message in rejected], [reject.value for reject in rejects], ids, headers, time_ms
    )


def all_dead_letters(parts: Sequence[DeadLetters]) -> DeadLetters:
    """Put the dead letters of consecutive batches of one partition one after the other; there is at least one batch."""
    return DeadLetters(
        partition=parts[0].partition,
        keys=[key for part in parts for key in part.keys],
        values=[value for part in parts for value in part.values],
        ids=[id_ for part in parts for id_ in part.ids],
        headers=[headers for part in parts for headers in part.headers],
        time_ms=parts[-1].time_ms,
    )

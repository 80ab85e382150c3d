"""What a sink finds of its own in an output partition when it resumes: the records after its last snapshot.

They were written by an execution that died before its snapshot became durable. The flow will produce them again, and
the sink must then drop them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from sinks.records import EVENT_TIME_HEADER, ID_HEADER
from sources.clients import ANSWER_TIMEOUT_S, PASSING, persistently, with_log
from sources.errors import OutputError
from sources.groups import committed_offsets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka.admin import AdminClient

MAX_TAIL_IDS: Final = 5_000_000
"""Most records of one partition that a resumed sink remembers: about 1 GB."""

_READ_TIMEOUT_S: Final = 60.0
_BATCH_RECORDS: Final = 5_000
_POLL_S: Final = 0.02


@dataclass(slots=True)
class Tail:
    """Ids of the records in `[start, end)` of an output partition that the flow has not produced again yet.

    Attributes:
        start: Offset from which the partition was read.
        end: Offset of its end when it was read.
        offsets: Offset of each id, in the order of the log.
    """

    start: int
    end: int
    offsets: dict[bytes, int] = field(default_factory=dict)
    _frame_ends: list[int] = field(default_factory=list)
    _frame_times_ms: list[int] = field(default_factory=list)

    def add(self, message: Message) -> None:
        """Remember a record; one without an id is not ours and is passed over.

        Our headers are the last ones. A dead letter carries those of the rejected record before them, which may bear
        the same names.
        """
        headers, offset = list(message.headers() or ()), message.offset() or 0
        if headers and headers[-1][0] == EVENT_TIME_HEADER:
            self._frame_ends.append(offset)
            self._frame_times_ms.append(int(headers.pop()[1] or 0))
        if headers and headers[-1][0] == ID_HEADER and isinstance(headers[-1][1], bytes):
            self.offsets[headers[-1][1]] = offset

    def first_open(self) -> int | None:
        """Tell the offset of the first record that did not come again; None when all did."""
        return next(iter(self.offsets.values()), None)

    def expire(self, before_ms: int) -> int:
        """Forget ids that did not come again although event time has gone far past them.

        Args:
            before_ms: Forget ids of records with an earlier event time than this.

        Returns:
            How many were forgotten.
        """
        gone = [id_ for id_, offset in self.offsets.items() if self._event_time_ms(offset) < before_ms]
        for id_ in gone:
            del self.offsets[id_]
        return len(gone)

    def _event_time_ms(self, offset: int) -> int:
        """Look up the event time of a record: the last one of its frame carries it."""
        frame = bisect_left(self._frame_ends, offset)
        return self._frame_times_ms[min(frame, len(self._frame_ends) - 1)] if self._frame_ends else 0


def stored_baseline(client: Mapping[str, Any], group: str, topic: str, partition: int) -> int | None:
    """Read where a sink that never took a snapshot began to write.

    Args:
        client: Options in librdkafka's spelling, brokers included.
        group: Consumer group that holds the offset.
        topic: Output topic.
        partition: Output partition.

    Returns:
        The offset that `store_baseline` stored, None if there is none.

    Raises:
        KafkaException: The cluster did not answer.
    """
    return committed_offsets(client, group, [TopicPartition(topic, partition)]).get((topic, partition))


def store_baseline(admin: AdminClient, group: str, topic: str, partition: int, offset: int) -> None:
    """Make durable where a sink begins to write, before its first write.

    Args:
        admin: A client of the cluster.
        group: Consumer group that is to hold the offset; it has no members.
        topic: Output topic.
        partition: Output partition.
        offset: End of the output partition.

    Raises:
        KafkaException: The cluster did not answer.
    """
    request = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition, offset)])

    def ask() -> None:
        answer = admin.alter_consumer_group_offsets([request], request_timeout=ANSWER_TIMEOUT_S)
        failure = answer[group].result(ANSWER_TIMEOUT_S).topic_partitions[0].error
        if failure is not None:
            raise KafkaException(failure)

    persistently(ask)


def partition_bounds(client: Mapping[str, Any], group: str, topic: str, partition: int) -> tuple[int, int]:
    """Ask for the first offset of a partition and for its end, transactions that are open included.

    Args:
        client: Options in librdkafka's spelling, brokers included.
        group: A consumer group to name; it is neither joined nor committed to.
        topic: Output topic.
        partition: Output partition.

    Returns:
        First offset, and the one after the last.

    Raises:
        KafkaException: The cluster did not answer.
    """
    options = {"group.id": group, "enable.auto.commit": False, "isolation.level": "read_uncommitted"}
    consumer = Consumer(with_log(client, options))
    where = TopicPartition(topic, partition)
    try:
        return persistently(lambda: consumer.get_watermark_offsets(where, timeout=ANSWER_TIMEOUT_S))
    finally:
        consumer.close()


def read_tail(client: Mapping[str, Any], group: str, topic: str, partition: int, start: int, end: int) -> Tail:
    """Read the committed records in `[start, end)` of an output partition.

    Call it when the partition's own transactional producer has fenced off its predecessor: no transaction of ours is
    open then, and a foreign one would hide records of ours behind it.

    Args:
        client: Options in librdkafka's spelling, brokers included.
        group: A consumer group to name; it is neither joined nor committed to.
        topic: Output topic.
        partition: Output partition.
        start: First offset to read, at or after the partition's first.
        end: Offset at which to stop.

    Returns:
        The ids found.

    Raises:
        OutputError: The end was not reached in time, a record can't be read, or there are too many of them.
    """
    tail = Tail(start, end)
    if start >= end:
        return tail
    options = {
        "group.id": group,
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 50,
    }
    consumer = Consumer(with_log(client, options))
    try:
        consumer.assign([TopicPartition(topic, partition, start)])
        _fill(tail, consumer, f"`{topic}` partition {partition}")
    finally:
        consumer.close()
    return tail


def _fill(tail: Tail, consumer: Consumer, where: str) -> None:
    """Read until the end of the tail has been reached."""
    deadline = time.monotonic() + _READ_TIMEOUT_S
    while time.monotonic() < deadline:
        for message in consumer.consume(_BATCH_RECORDS, _POLL_S):
            error = message.error()
            if error is None:
                tail.add(message)
            elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own codes are spelled so
                if error.retriable() or error.code() in PASSING:
                    continue
                raise OutputError(f"own records in {where} can't be read back: {error.str()}")
            elif (message.offset() or 0) >= tail.end:
                return
        if len(tail.offsets) > MAX_TAIL_IDS:
            raise OutputError(
                f"{where} holds more than {MAX_TAIL_IDS} records since offset {tail.start}, too many to tell which the "
                f"flow would write again; resume from a newer recovery directory, or write to a new topic"
            )
    raise OutputError(
        f"own records in {where} could not be read up to offset {tail.end} within {_READ_TIMEOUT_S:g} s: the cluster "
        f"is slow, or another producer has a transaction open there"
    )

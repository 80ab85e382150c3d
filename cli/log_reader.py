"""A topic from some offsets to where it ends now, in the order of each partition; nobody is told that it was read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from operators.kernels.decode import UNDECODABLE
from sources.clients import ANSWER_TIMEOUT_S, reason
from sources.errors import SourceError
from sources.record import sort_out
from sources.topic import bounds_of, open_consumer, partitions_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sources.record import Record

T = TypeVar("T")

STALL_S: Final = 30.0
"""How long Kafka may bring nothing before the end is reached."""

_GROUP: Final = "tailmark-reader"
_PREFETCH_KIB: Final = 65_536
_READ_ROWS: Final = 2_000
_POLL_S: Final = 0.2


def ours(values: Iterable[bytes | None], kind: type[T]) -> Iterator[T]:
    """Decode the records of a topic, and pass over those that are not ours: anybody may try something out on it.

    Args:
        values: Values of records; tombstones are passed over, too.
        kind: What ours hold, as JSON.
    """
    decode = msgspec.json.Decoder(kind).decode
    for value in values:
        if value is not None:
            try:
                record = decode(value)
            except UNDECODABLE:
                continue
            yield record


class LogReader:
    """Reads what was committed to a topic.

    Attributes:
        topic: Its name.
        bounds: First offset and the one after the last, by partition, when the reader was made.
    """

    def __init__(self, client: Mapping[str, Any], topic: str) -> None:
        """Find out where the topic begins and ends.

        Args:
            client: How to reach the brokers, in librdkafka's spelling.
            topic: Its name.

        Raises:
            ClusterUnavailableError: Kafka does not answer.
            SourceError: There is no such topic.
        """
        self.topic = topic
        self._client = client
        partitions = partitions_of(client, topic)
        self._consumer = open_consumer({**client, "fetch.wait.max.ms": 50}, _GROUP, _PREFETCH_KIB)
        self.bounds = bounds_of(self._consumer, topic, partitions)
        self._left: set[int] = set()

    def offsets_at(self, time_ms: int) -> dict[int, int]:
        """Ask for the first record of each partition whose Kafka timestamp is a time or later.

        Args:
            time_ms: Milliseconds since the epoch.

        Returns:
            Offset by partition; the end of a partition that has no such record.

        Raises:
            SourceError: Kafka does not answer in time.
        """
        places = [TopicPartition(self.topic, partition, max(0, time_ms)) for partition in self.bounds]
        try:
            found = self._consumer.offsets_for_times(places, timeout=ANSWER_TIMEOUT_S)
        except KafkaException as error:
            raise SourceError(f"`{self.topic}` can't be searched by time: {reason(error, self._client)}") from error
        return {place.partition: place.offset if place.offset >= 0 else self._end(place.partition) for place in found}

    def read(self, starts: Mapping[int, int] | None = None) -> Iterator[tuple[int, list[Record]]]:
        """Read to the end.

        Args:
            starts: Offset to begin at, by partition; the first one where it is not given.

        Yields:
            Partition, and some of its records, in log order.

        Raises:
            SourceError: It can't be read to the end.
        """
        begins = {
            partition: max(low, (starts or {}).get(partition, low)) for partition, (low, _) in self.bounds.items()
        }
        self._left = {partition for partition, begin in begins.items() if begin < self._end(partition)}
        self._consumer.assign([TopicPartition(self.topic, partition, begins[partition]) for partition in self._left])
        brought_s = time.monotonic()
        while self._left:
            messages = cast("list[Record]", self._consumer.consume(_READ_ROWS, _POLL_S))
            if messages:
                brought_s = time.monotonic()
            elif time.monotonic() - brought_s > STALL_S:
                raise SourceError(f"the end of `{self.topic}` was not reached: Kafka brings nothing for {STALL_S:g} s")
            batches, notices = sort_out(messages)
            for partition, batch in batches.items():
                if partition in self._left:
                    yield partition, [record for record in batch if record.offset() < self._end(partition)]
                    self._reach(partition, batch[-1].offset() + 1)
            for notice in notices:
                self._heed(notice)

    def leave(self, partition: int) -> None:
        """Read no more of a partition."""
        if partition in self._left:
            self._left.discard(partition)
            self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def _end(self, partition: int) -> int:
        return self.bounds[partition][1]

    def _reach(self, partition: int, offset: int) -> None:
        if offset >= self._end(partition):
            self.leave(partition)

    def _heed(self, notice: Record) -> None:
        error = notice.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own code
            self._reach(notice.partition(), notice.offset())
        elif error is not None and not error.retriable():
            raise SourceError(f"`{self.topic}` can't be read: {error.str()}")

"""Which dead letters were sent back already: a compacted topic beside theirs, written in the same transactions.

The offsets of a consumer group would do, were they not forgotten a week after the last commit.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cli.log_reader import LogReader, ours
from sinks.topics import OutputTopic, ensure_topics
from sources.errors import MissingTopicError
from sources.topic_watch import TopicWatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Producer

_SUFFIX: Final = ".replayed"


class _Sent(msgspec.Struct):
    """A record of the topic: letters of a partition and a reason were sent back up to an offset."""

    topic_id: str | None
    partition: int
    reason: str
    next_offset: int


class Memory:
    """For each partition and reason, how far letters have been sent back.

    Attributes:
        topic: Where it is kept.
    """

    def __init__(self, client: Mapping[str, Any], letters: str, *, create: bool) -> None:
        """Read what is known.

        Args:
            client: How to reach the brokers, in librdkafka's spelling.
            letters: The dead-letter topic; it exists.
            create: Whether to make the topic when it is missing.

        Raises:
            FlowError: Kafka does not answer, or the topic can't be made.
        """
        self.topic = f"{letters}{_SUFFIX}"
        # Offsets in a topic that was made anew are other letters.
        self._topic_id = TopicWatch(client, letters, once=True).topic_id
        self._next: dict[tuple[int, str], int] = {}
        if create:
            ensure_topics(client, [OutputTopic(self.topic, compacted=True)], partitions=1)
        try:
            reader = LogReader(client, self.topic)
        except MissingTopicError:
            if create:
                raise
            return
        with closing(reader):
            for _, records in reader.read():
                for sent in ours((record.value() for record in records), _Sent):
                    if sent.topic_id == self._topic_id:
                        self._next[sent.partition, sent.reason] = sent.next_offset

    def knows(self, partition: int, reason: str, offset: int) -> bool:
        """Tell whether a letter has been sent back."""
        return offset < self._next.get((partition, reason), 0)

    def write(self, producer: Producer, upto: Mapping[tuple[int, str], int]) -> None:
        """Put what is sent back into the open transaction.

        Args:
            producer: In a transaction.
            upto: Offset after the last letter of each partition and reason.
        """
        for (partition, reason), offset in upto.items():
            known = max(offset, self._next.get((partition, reason), 0))
            sent = _Sent(self._topic_id, partition, reason, known)
            producer.produce(self.topic, msgspec.json.encode(sent), f"{reason}|{partition}".encode())
            self._next[partition, reason] = known

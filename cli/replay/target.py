"""Where a slice is replayed: topics of its own, never those that anybody lives on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException, Message, Producer
from confluent_kafka.cimpl import NewTopic

from cli.log_reader import LogReader
from sources.clients import ANSWER_TIMEOUT_S, cluster_metadata, open_admin, with_log
from sources.clients import reason as reason_of
from sources.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import KafkaError
    from confluent_kafka.admin import AdminClient

    from cli.replay.slices import Past
    from flows.settings import Settings

ROLES: Final = ("events", "windows", "alerts", "alerts_state", "dead_letter", "truth")

_POLL_S: Final = 0.1
_FLUSH_S: Final = 120.0
_MOST_BYTES: Final = 64 * 1024 * 1024


class Target:
    """The topics of a replay.

    Attributes:
        names: Name of each topic, by its role in the settings.
        written: Events that were put into the topic of events.
    """

    def __init__(self, settings: Settings, prefix: str) -> None:
        """Name them.

        Args:
            settings: Of the live flows.
            prefix: Before each of their topics.
        """
        self.names = {role: f"{prefix}{getattr(settings.kafka.topics, role)}" for role in ROLES}
        self.written = 0
        self._client = settings.client()
        self._admin, self._reasons = open_admin(self._client)
        self._failure: KafkaError | None = None
        self._producer: Producer | None = None

    def partitions(self, topic: str) -> int:
        """Count the partitions of a topic; 0 when there is none.

        Raises:
            ClusterUnavailableError: Kafka does not answer.
        """
        found = cluster_metadata(self._admin, self._reasons, self._client).topics.get(topic)
        return 0 if found is None else len(found.partitions)

    def make(self, partitions: int, *, overwrite: bool) -> None:
        """Create the topic of events, empty; the flow creates the others.

        Args:
            partitions: How many it gets.
            overwrite: Whether topics of an earlier replay are deleted.

        Raises:
            OutputError: There are such topics and they are not to be deleted, or Kafka refuses.
        """
        present = [name for name in self.names.values() if self.partitions(name)]
        if present and not overwrite:
            raise OutputError(
                f"topic `{present[0]}` is there from an earlier replay, and what is written now would be mixed with it;"
                f" delete it with --overwrite, or choose another --prefix"
            )
        try:
            self._delete(self._admin, present)
            # Old records must stay, whatever the broker's default is; their timestamps are those they had.
            config = {
                "retention.ms": "-1",
                "message.timestamp.type": "CreateTime",
                "message.timestamp.after.max.ms": str(2**63 - 1),
                "max.message.bytes": str(_MOST_BYTES),
            }
            new = NewTopic(self.names["events"], partitions, -1, config=config)
            self._admin.create_topics([new], request_timeout=ANSWER_TIMEOUT_S)[self.names["events"]].result()
        except KafkaException as error:
            raise OutputError(f"topics of the replay can't be made: {reason_of(error, self._client)}") from error
        own = {"enable.idempotence": True, "acks": "all", "linger.ms": 5, "compression.type": "lz4"}
        self._producer = Producer(with_log({"message.max.bytes": _MOST_BYTES, **self._client}, own))

    def write(self, events: Sequence[Past]) -> None:
        """Put events into the topic, with the partition and the timestamp that they had.

        Args:
            events: In the order of each partition.

        Raises:
            OutputError: One was not taken.
        """
        assert self._producer is not None
        topic = self.names["events"]
        for event in events:
            while True:
                try:
                    self._producer.produce(
                        topic,
                        event.value,
                        event.key,
                        event.partition,
                        self._delivered,
                        None,
                        event.kafka_ms,
                        list(event.headers),
                    )
                    break
                except BufferError:
                    self._producer.poll(_POLL_S)
        self._producer.poll(0)
        self.written += len(events)
        self._check()

    def finish(self) -> None:
        """Wait until all events are in the topic.

        Raises:
            OutputError: They are not.
        """
        assert self._producer is not None
        left = self._producer.flush(_FLUSH_S)
        self._check()
        if left:
            raise OutputError(f"{left} events were not taken by `{self.names['events']}` within {_FLUSH_S:g} s")

    def counts(self) -> dict[str, int]:
        """Count the records of each topic that the flow has written to.

        Raises:
            FlowError: A topic can't be read.
        """
        counts = {}
        for name in self.names.values():
            if name != self.names["events"] and self.partitions(name):
                reader = LogReader(self._client, name)
                try:
                    counts[name] = sum(len(records) for _, records in reader.read())
                finally:
                    reader.close()
        return counts

    def _delete(self, admin: AdminClient, topics: Sequence[str]) -> None:
        if not topics:
            return
        for deleted in admin.delete_topics(list(topics), operation_timeout=ANSWER_TIMEOUT_S).values():
            deleted.result()
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while any(map(self.partitions, topics)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        self._failure = self._failure or error

    def _check(self) -> None:
        if self._failure is not None:
            raise OutputError(f"events can't be written to `{self.names['events']}`: {self._failure.str()}")

"""Plain tools for tests that look at a Kafka from outside: make topics, write records, read whole topics.

Every function takes the client options of a cluster (`kafka.client_options` of the fixture), so that it works the same
with TLS and SASL.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

Options: TypeAlias = Mapping[str, str]
Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]

TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 15.0
READ_BATCH = 10_000
READ_WAIT_S = 0.2
POLL_S = 0.1
UNSETTLED = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
    }
)
LIMITS = {
    "message.max.bytes": str(8 * 1024 * 1024),
    "queue.buffering.max.messages": "1000000",
    "topic.metadata.propagation.max.ms": "2000",  # an absent topic is reported then, not after 30 s
}


@dataclass(frozen=True)
class NewRecord:
    """A record to write.

    Attributes:
        value: Its bytes; None is a tombstone.
        key: Its key; None leaves the partition to chance where none is given.
        partition: Where to; None lets the key decide.
        headers: In order.
        timestamp_ms: Its Kafka timestamp; None means now.
    """

    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None


@dataclass(frozen=True, order=True)
class LogRecord:
    """A record as it lies in the log."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int


def create_topic(options: Options, topic: str, *, partitions: int = 4, **config: str) -> None:
    """Create a topic and wait until it can be written; `config` keys have `_` for `.`.

    Raises:
        KafkaException: It exists already, or the cluster refuses.
    """
    create_topics(options, [topic], partitions=partitions, **config)


def create_topics(options: Options, topics: Sequence[str], *, partitions: int = 4, **config: str) -> None:
    """Create several topics alike in one request; see `create_topic`."""
    admin = AdminClient(dict(options))
    settings = {key.replace("_", "."): value for key, value in config.items()}
    wanted = [NewTopic(topic, partitions, config=settings) for topic in topics]
    for created in admin.create_topics(wanted, operation_timeout=REQUEST_TIMEOUT_S).values():
        created.result(REQUEST_TIMEOUT_S)
    for topic in topics:
        _wait_for_leaders(admin, topic, partitions)
        end_offsets(options, topic)


def topic_names(options: Options) -> set[str]:
    """Return the names of all topics but Kafka's own."""
    topics = AdminClient(dict(options)).list_topics(timeout=REQUEST_TIMEOUT_S).topics
    return {name for name in topics if not name.startswith("__")}


def produce(options: Options, topic: str, records: Iterable[NewRecord | bytes]) -> None:
    """Write records in their order within each partition; plain bytes are values without a key.

    Raises:
        KafkaException: One was not confirmed.
        TimeoutError: The cluster did not confirm in `TIMEOUT_S`.
    """
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    client = {**options, "enable.idempotence": "true", "linger.ms": "5", **LIMITS}
    producer = Producer(client)
    for given in records:
        record = given if isinstance(given, NewRecord) else NewRecord(given)
        _produce_one(producer, topic, record, delivered)
    if producer.flush(TIMEOUT_S):
        message = f"records of {topic} were not confirmed in {TIMEOUT_S:.0f} s"
        raise TimeoutError(message)
    if failures:
        raise KafkaException(failures[0])


def end_offsets(options: Options, topic: str, *, isolation: str = "read_committed") -> dict[int, int]:
    """Return the offset after the last readable record of each partition.

    Raises:
        KafkaException: The topic is absent, or a partition had no leader for `REQUEST_TIMEOUT_S`.
    """
    consumer = _consumer(options, isolation)
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    try:
        partitions = consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic].partitions
        return {
            partition: _end_offset(consumer, TopicPartition(topic, partition), deadline) for partition in partitions
        }
    finally:
        consumer.close()


def read_topic(options: Options, topic: str, *, isolation: str = "read_committed") -> list[LogRecord]:
    """Read a whole topic, from the first record to the end at the time of the call.

    Args:
        options: Of the cluster.
        topic: An existing topic.
        isolation: `read_committed` leaves out aborted transactions and stops before open ones; `read_uncommitted`.

    Returns:
        Records by partition, then offset.

    Raises:
        KafkaException: The topic is absent or the cluster failed.
        TimeoutError: The end was not reached in `TIMEOUT_S`.
    """
    consumer = _consumer(options, isolation)
    try:
        metadata = consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in metadata.partitions])
        return sorted(_read_to_end(consumer, topic, set(metadata.partitions)), key=lambda r: (r.partition, r.offset))
    finally:
        consumer.close()


def wait_for_records(
    options: Options,
    topic: str,
    enough: int | Callable[[list[LogRecord]], bool],
    *,
    timeout_s: float = TIMEOUT_S,
) -> list[LogRecord]:
    """Read a topic again and again until it holds enough; the topic may appear later.

    Args:
        options: Of the cluster.
        topic: The topic.
        enough: A number of records, or what must hold for all records so far.
        timeout_s: How long to wait.

    Raises:
        TimeoutError: It never held enough; the message says how many there were.
    """
    satisfied = enough if callable(enough) else (lambda records: len(records) >= enough)
    deadline = time.monotonic() + timeout_s
    while True:
        found: list[LogRecord] = []
        if topic in topic_names(options):
            try:
                found = read_topic(options, topic)
            except KafkaException as error:
                # One broker knows a topic before the others do.
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
        if satisfied(found):
            return found
        if time.monotonic() > deadline:
            message = f"{topic} holds {len(found)} records after {timeout_s:.0f} s, which is not what was waited for"
            raise TimeoutError(message)
        time.sleep(POLL_S)


def _end_offset(consumer: Consumer, place: TopicPartition, deadline: float) -> int:
    """Ask for one end offset; a leader that was just chosen may not know it yet."""
    while True:
        try:
            return consumer.get_watermark_offsets(place, REQUEST_TIMEOUT_S)[1]
        except KafkaException as error:
            if time.monotonic() > deadline or error.args[0].code() not in UNSETTLED:
                raise
        time.sleep(POLL_S)


def _wait_for_leaders(admin: AdminClient, topic: str, partitions: int) -> None:
    """Wait until clients are told of a leader for each partition of a new topic."""
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while time.monotonic() < deadline:
        known = admin.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
        if len(known.partitions) == partitions and all(part.leader >= 0 for part in known.partitions.values()):
            return
        time.sleep(POLL_S)
    message = f"{topic} has no leaders after {REQUEST_TIMEOUT_S:.0f} s"
    raise TimeoutError(message)


def _produce_one(
    producer: Producer, topic: str, record: NewRecord, delivered: Callable[[KafkaError | None, Message], None]
) -> None:
    """Queue one record, waiting for room."""
    place: dict[str, Any] = {} if record.partition is None else {"partition": record.partition}
    if record.timestamp_ms is not None:
        place["timestamp"] = record.timestamp_ms
    while True:
        try:
            producer.produce(
                topic, record.value, record.key, headers=list(record.headers), on_delivery=delivered, **place
            )
        except BufferError:
            producer.poll(POLL_S)
        else:
            producer.poll(0)
            return


def _consumer(options: Options, isolation: str) -> Consumer:
    return Consumer(
        {
            **options,
            "group.id": "kafka-log",  # never joined: partitions are assigned
            "enable.auto.commit": "false",
            "enable.partition.eof": "true",
            "isolation.level": isolation,
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": "10",
            "fetch.wait.max.ms": "10",  # an empty partition is reported after this time
        }
    )


def _read_to_end(consumer: Consumer, topic: str, open_partitions: set[int]) -> list[LogRecord]:
    """Consume until every partition has reported its end once."""
    records: list[LogRecord] = []
    deadline = time.monotonic() + TIMEOUT_S
    while open_partitions:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the end of {topic} was not reached in {TIMEOUT_S:.0f} s in {sorted(open_partitions)}")
        for message in consumer.consume(READ_BATCH, READ_WAIT_S):
            error = message.error()
            if error is None:
                records.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition())
            elif not error.retriable() and error.code() not in UNSETTLED:
                raise KafkaException(error)
    return records


def _record(message: Message) -> LogRecord:
    return LogRecord(
        partition=cast("int", message.partition()),
        offset=cast("int", message.offset()),
        key=message.key(),
        value=message.value(),
        headers=cast("Headers", tuple(message.headers() or ())),
        timestamp_ms=message.timestamp()[1],
    )

"""What a source asks a broker about its topic; every question has a time limit and an answer in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from sources.clients import ANSWER_TIMEOUT_S, cluster_metadata, open_admin, with_log
from sources.errors import MissingTopicError, SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def partitions_of(client: Mapping[str, Any], topic: str) -> list[int]:
    """List the partitions of a topic.

    Args:
        client: How to reach the brokers, in librdkafka's spelling.
        topic: Name of the topic.

    Returns:
        Their numbers, ascending.

    Raises:
        ClusterUnavailableError: Kafka does not answer in time, or does not let us in.
        MissingTopicError: There is no such topic.
        SourceError: A broker says that it can't be read.
    """
    admin, reasons = open_admin(client)
    found = cluster_metadata(admin, reasons, client).topics.get(topic)
    if found is None:
        raise MissingTopicError(
            f"topic `{topic}` does not exist, or this user may not see it, so there is nothing to read; create it, or "
            f"grant the right to read it, and start again"
        )
    if found.error is not None:
        raise SourceError(f"topic `{topic}` can't be read: {found.error.str()}")
    return sorted(found.partitions)


def open_consumer(client: Mapping[str, Any], group_id: str, prefetch_kib: int) -> Consumer:
    """Build the consumer of a source, which begins and commits where it is told and nowhere else.

    Args:
        client: How to reach the brokers, in librdkafka's spelling.
        group_id: Consumer group that offsets are mirrored to.
        prefetch_kib: How much it may fetch ahead, unless `client` says so.
    """
    tuning = {"fetch.queue.backoff.ms": 10, "queued.max.messages.kbytes": max(1024, prefetch_kib)}
    required = {
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
    }
    return Consumer(with_log({**tuning, **client}, required))


def bounds_of(consumer: Consumer, topic: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Ask where the log of each partition begins and ends now.

    Returns:
        (first offset, offset after the last) by partition.

    Raises:
        SourceError: A broker does not answer in time.
    """
    try:
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_TIMEOUT_S)
            for number in partitions
        }
    except KafkaException as error:
        raise SourceError(
            f"kafka did not tell the offsets of `{topic}` within {ANSWER_TIMEOUT_S:g} s: {error.args[0].str()}"
        ) from error


def check_same(topic: str, known_id: str | None, topic_id: str | None) -> None:
    """Refuse to go on in another topic of the same name, where offsets mean other records.

    Args:
        topic: Name of the topic.
        known_id: Id of the topic that the offsets are of; None when it is not known.
        topic_id: Id of the topic that has the name now.

    Raises:
        SourceError: It is another one.
    """
    if known_id is not None and topic_id is not None and known_id != topic_id:
        raise SourceError(
            f"`{topic}` is not the topic that was read before: it was deleted and made anew; start with an empty"
            " recovery directory to read it from its beginning"
        )


def check_resumable(topic: str, partition: int, offset: int, bounds: tuple[int, int]) -> None:
    """Refuse to resume where the log no longer is.

    Args:
        topic: Name of the topic.
        partition: Number of the partition.
        offset: Where the snapshot says to go on.
        bounds: Where the log begins and ends.

    Raises:
        SourceError: Records between the snapshot and the log are gone, or the topic was made anew.
    """
    low, high = bounds
    if offset < low:
        raise SourceError(
            f"retention has passed the snapshot: `{topic}` partition {partition} resumes at offset {offset}, but its"
            f" log begins at {low}, so {low - offset} records can't be counted; start with an empty recovery directory"
            " to accept that and read what is left"
        )
    if offset > high:
        raise SourceError(
            f"`{topic}` partition {partition} resumes at offset {offset}, but its log ends at {high}, so records were"
            " lost or the topic was made anew; start with an empty recovery directory to read it from its beginning"
        )

"""What a source asks a broker about its topic; every question has a time limit and an answer in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from sources.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

METADATA_TIMEOUT_S: Final = 10.0


def partitions_of(client: Mapping[str, Any], topic: str, *, timeout_s: float = METADATA_TIMEOUT_S) -> list[int]:
    """List the partitions of a topic.

    Args:
        client: How to reach the brokers, in librdkafka's spelling.
        topic: Name of the topic.
        timeout_s: How long to wait for an answer.

    Returns:
        Their numbers, ascending.

    Raises:
        SourceError: No broker answers, or there is no such topic.
    """
    consumer = Consumer({**client, "group.id": "tailmark-metadata", "log_level": 0})
    try:
        metadata = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
    except KafkaException as error:
        servers = client["bootstrap.servers"]
        raise SourceError(
            f"kafka at {servers} did not answer within {timeout_s:g} s: {error.args[0].str()}; nothing was read"
        ) from error
    finally:
        consumer.close()
    if metadata.error is not None:
        if metadata.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise SourceError(f"topic `{topic}` does not exist, so there is nothing to read; create it and start again")
        raise SourceError(f"topic `{topic}` can't be read: {metadata.error.str()}")
    return sorted(metadata.partitions)


def bounds_of(consumer: Consumer, topic: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Ask where the log of each partition begins and ends now.

    Returns:
        (first offset, offset after the last) by partition.

    Raises:
        SourceError: A broker does not answer in time.
    """
    try:
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=METADATA_TIMEOUT_S)
            for number in partitions
        }
    except KafkaException as error:
        raise SourceError(
            f"kafka did not tell the offsets of `{topic}` within {METADATA_TIMEOUT_S:g} s: {error.args[0].str()}"
        ) from error


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
            f"`{topic}` partition {partition} resumes at offset {offset}, but its log ends at {high}, so the topic was"
            " emptied or made anew; start with an empty recovery directory to read it from its beginning"
        )

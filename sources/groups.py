"""Consumer groups that have no members and hold offsets for somebody to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from sources.clients import ANSWER_TIMEOUT_S, persistently, with_log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def committed_offsets(
    client: Mapping[str, Any], group: str, places: Sequence[TopicPartition]
) -> dict[tuple[str, int], int]:
    """Read the offsets that are committed to a group, without joining it.

    A consumer asks, and not the admin client whose question this is: that one ends the whole process with a
    segmentation fault when the group's coordinator has moved or is only coming up, as in a cluster that is new
    (librdkafka issue 5040, seen with 2.16.1).

    Args:
        client: Options in librdkafka's spelling, brokers included.
        group: The group.
        places: Partitions to ask for.

    Returns:
        Offset by topic and partition, without those that have none.

    Raises:
        KafkaException: The cluster refused, or did not answer in time.
    """
    if not places:
        return {}
    consumer = Consumer(with_log(client, {"group.id": group, "enable.auto.commit": False}))

    def ask() -> list[TopicPartition]:
        answer = consumer.committed(
            [TopicPartition(place.topic, place.partition) for place in places], ANSWER_TIMEOUT_S
        )
        for place in answer:
            if place.error is not None:
                raise KafkaException(place.error)
        return answer

    try:
        answer = persistently(ask)
    finally:
        consumer.close()
    return {(place.topic, place.partition): place.offset for place in answer if place.offset >= 0}

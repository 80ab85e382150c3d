"""The yardstick: consume a topic with a tuned confluent-kafka consumer, look at each value, and do nothing with it.

`python -m benchmarks.reference SERVERS TOPIC` reads to the end of every partition and prints how many records it saw.
"""

from __future__ import annotations

import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition


def consumer_of(servers: str, topic: str) -> tuple[Consumer, int]:
    """Go to the beginning of a topic, and tell how many partitions there are to come to the end of."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "tailmark-bench-reference",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 10,
        }
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    return consumer, len(partitions)


def consume(servers: str, topic: str) -> int:
    """Read a topic from its beginning to the end of every partition.

    Returns:
        How many records there were.

    Raises:
        KafkaException: The cluster failed.
    """
    consumer, reading = consumer_of(servers, topic)
    records = 0
    while reading:
        for message in consumer.consume(10_000, 0.1):
            # A notice carries its text as its value, so only an empty look at `error` tells them apart.
            error = message.error()
            if error is None:
                records += message.value() is not None
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own codes begin so
                reading -= 1
            else:
                raise KafkaException(error)
    consumer.close()
    return records


if __name__ == "__main__":
    print(consume(sys.argv[1], sys.argv[2]))

"""The least that a bad record costs: consume and decode a topic, write dead letters of what is no event, and no more.

`python -m benchmarks.bare_letters SERVERS TOPIC LETTERS` reads to the end of every partition and tells how many letters
there were. They are in transactions and have the headers of the contract; nothing resumes, and nobody else is told.
"""

from __future__ import annotations

import sys
import time
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec
from confluent_kafka import KafkaError, Producer

from benchmarks.reference import consumer_of
from operators.kernels.decode import UNDECODABLE, Event
from sources.record import sort_out

if TYPE_CHECKING:
    from sources.record import Record

COMMIT_EVERY_S: Final = 0.5

_WAIT_S: Final = 30.0


def write_letters(servers: str, topic: str, letters: str) -> int:
    """Write a dead letter for each record that is no event.

    Args:
        servers: Where Kafka is.
        topic: What is read.
        letters: What is written to; it exists.

    Returns:
        How many letters there were.
    """
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "transactional.id": "tailmark-bench-letters",
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.init_transactions(_WAIT_S)
    producer.begin_transaction()
    decode = msgspec.json.Decoder(Event).decode
    committed_s = time.monotonic()
    written = 0
    consumer, reading = consumer_of(servers, topic)
    while reading:
        records, notices = sort_out(consumer.consume(10_000, 0.1))
        reading -= sum(notice.error().code() == KafkaError._PARTITION_EOF for notice in notices)  # noqa: SLF001 - librdkafka's own codes begin so
        for message in chain.from_iterable(records.values()):
            value = message.value() or b""
            try:
                decode(value)
            except UNDECODABLE as error:
                producer.produce(letters, value, message.key(), headers=_headers(message, str(error)))
                written += 1
        if time.monotonic() - committed_s > COMMIT_EVERY_S:
            producer.commit_transaction(_WAIT_S)
            producer.begin_transaction()
            committed_s = time.monotonic()
    producer.commit_transaction(_WAIT_S)
    consumer.close()
    return written


def _headers(message: Record, why: str) -> list[Any]:
    return [
        ("dlq.error.stage", b"validate"),
        ("dlq.error.reason", b"wrong_type"),
        ("dlq.error.message", why),
        ("dlq.source.topic", message.topic()),
        ("dlq.source.partition", b"%d" % message.partition()),
        ("dlq.source.offset", b"%d" % message.offset()),
        ("dlq.source.timestamp_ms", b"%d" % message.timestamp()[1]),
    ]


if __name__ == "__main__":
    print(write_letters(*sys.argv[1:4]))

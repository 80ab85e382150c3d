"""What producers send, through a real broker: every form of a record is read, or leaves as it came."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.dirty_log import START_MS, event
from tests.kafka_log import NewRecord, produce, read_topic
from tests.sources.reading import KAFKA_MS, Opened, read_all, records, source_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import KafkaCluster

MIB = 1_048_576
GOOD = event(START_MS)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compression_of_the_producer_does_not_matter(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened, codec: str
) -> None:
    topic = make_topic(partitions=1)
    produce({**kafka.client_options, "compression.type": codec}, topic, records(0, 200))
    reading = read_all(opened(source_on(kafka.client_options, topic)))
    assert reading.endpoints() == [f"/{number}" for number in range(200)]


def test_time_of_the_append_decides_what_is_in_the_future(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    """Where the broker stamps records, the stamp of the producer is not believed."""
    topic = make_topic(partitions=1, message_timestamp_type="LogAppendTime")
    now_ms = time.time_ns() // 1_000_000
    far = now_ms + 10 * 3_600_000
    produce(
        kafka.client_options,
        topic,
        [
            NewRecord(event(now_ms, "now"), partition=0, timestamp_ms=START_MS),
            NewRecord(event(far, "far"), partition=0, timestamp_ms=far),
        ],
    )
    reading = read_all(opened(source_on(kafka.client_options, topic)))
    assert reading.events() == {"now": 1}
    assert [headers["dlq.error.reason"] for _, _, headers in reading.dead()] == [b"timestamp_in_future"]
    stamp = int(reading.dead()[0][2]["dlq.source.timestamp_ms"])
    assert now_ms <= stamp < far


def padded(size: int) -> bytes:
    """A good event of exactly that many bytes."""
    return GOOD[:-1] + b',"pad":"' + b"x" * (size - len(GOOD) - 9) + b'"}'


def test_largest_value_counts_and_a_larger_one_leaves_intact(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=1, max_message_bytes=str(6 * MIB))
    large, largest, huge = padded(MIB + 1), padded(MIB), padded(5 * MIB)
    values = [largest, large, GOOD, huge, GOOD]
    headers = (("k", b"v"),)
    produce(kafka.client_options, topic, [NewRecord(value, b"key", 0, headers, KAFKA_MS) for value in values])
    reading = read_all(opened(source_on(kafka.client_options, topic)))
    assert reading.events() == {"a": 3}
    assert [value for _, value, _ in reading.dead()] == [large, huge]
    assert {(headers["dlq.error.reason"], headers["k"]) for _, _, headers in reading.dead()} == {(b"too_large", b"v")}


def test_headers_and_keys_of_any_kind_stay_with_a_rejected_record(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=1)
    headers = tuple((f"h-{number % 50}-ü", None if number % 7 == 0 else bytes(range(256))) for number in range(300))
    keys = ["schlüssel-🚀".encode(), b"\xff\x00", b"", None]
    produce(kafka.client_options, topic, [NewRecord(b"no", key, 0, headers, KAFKA_MS) for key in keys] + records(0, 1))
    reading = read_all(opened(source_on(kafka.client_options, topic)))
    letters = [frame.dead for frame in reading.frames if frame.dead is not None]
    assert [key for letter in letters for key in letter.keys] == keys
    for own in (own for letter in letters for own in letter.headers):
        assert tuple(own[: len(headers)]) == headers
        assert [name for name, _ in own[len(headers) :]][:3] == [
            "dlq.error.stage",
            "dlq.error.reason",
            "dlq.error.message",
        ]
    assert reading.events() == {"a": 1}


def test_arrays_of_ten_thousand_events_are_taken_however_many_come_at_once(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=1, max_message_bytes=str(4 * MIB))
    small = [b'{"timestamp_ms":%d,"service":"%d","latency_ms":1}' % (START_MS, number) for number in range(8)]
    array = b"[" + b",".join(small * 1250) + b"]"
    produce(kafka.client_options, topic, [NewRecord(array, None, 0, timestamp_ms=KAFKA_MS)] * 8)
    reading = read_all(opened(source_on(kafka.client_options, topic)))
    assert reading.events() == {str(number): 10_000 for number in range(8)}


def test_deep_nesting_does_no_harm(kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened) -> None:
    topic = make_topic(partitions=1)
    shallow, deep = (GOOD[:-1] + b',"x":' + b"[" * depth + b"]" * depth + b"}" for depth in (100, 200_000))
    values = [shallow, deep, b"[" + GOOD + b"," + deep + b"]", b"[" * 400_000, GOOD]
    produce(kafka.client_options, topic, [NewRecord(value, None, 0, timestamp_ms=KAFKA_MS) for value in values])
    reading = read_all(opened(source_on(kafka.client_options, topic)))
    assert reading.events() == {"a": 3}
    assert [headers["dlq.error.reason"] for _, _, headers in reading.dead()] == [b"too_deep"] * 3
    assert [value for _, value, _ in reading.dead()] == [deep, deep, values[3]]


def test_every_record_is_an_event_or_a_dead_letter_in_the_order_of_the_log(
    kafka: KafkaCluster, make_topic: Callable[..., str], opened: Opened
) -> None:
    topic = make_topic(partitions=1)
    values = [GOOD, None, b"", b"{", json.dumps([1, json.loads(GOOD), {}]).encode(), b"[]", GOOD + b"\n" + b"x", GOOD]
    produce(kafka.client_options, topic, [NewRecord(value, None, 0, timestamp_ms=KAFKA_MS) for value in values])
    reading = read_all(opened(source_on(kafka.client_options, topic)))
    places = [(int(headers["dlq.source.offset"]), headers.get("dlq.item")) for _, _, headers in reading.dead()]
    assert places == [(1, None), (2, None), (3, None), (4, b"0"), (4, b"2"), (6, b"1")]
    assert reading.events() == {"a": 4}
    assert len(read_topic(kafka.client_options, topic)) == len(values)

"""Publishing to a real Kafka: order, timestamps, topics, failed deliveries, pace and stop."""

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from simulator.encode import CONTENTS, Records, partition_of
from simulator.publish import Pace, Progress, Publisher, PublishError, Session, ensure_topic
from simulator.stream import Chunk, record
from tests.kafka_log import NewRecord, produce, read_topic
from tests.simulator.recording import PARTITIONS, START_MS, plan, rows


def chunk(arrivals: list[int], size: int = 10) -> Chunk:
    """Make a chunk with one record for each arrival, all in partition 0."""
    count = len(arrivals)
    contents = np.zeros((count, len(CONTENTS)), dtype=np.int32)
    contents[:, 0] = 1
    return Chunk(
        arrivals[0], Records(), Records([b"x" * size] * count, [b"k"] * count, [0] * count, arrivals, contents)
    )


def session(publisher: Publisher, *, speed: float = 0.0, stop: threading.Event | None = None) -> Session:
    return Session(
        publisher, None, pace=Pace(START_MS, speed), stop=stop or threading.Event(), on_progress=lambda _: None
    )


def test_topic_holds_the_recording_in_order_with_event_time_as_its_time(kafka: Any) -> None:
    topic = f"recording-{uuid.uuid4().hex}"
    client = kafka.client_options
    assert ensure_topic(client, topic, PARTITIONS) == PARTITIONS
    wanted = plan(scenario="demo", heartbeat_ms=1000)
    publisher = Publisher(client, topic)
    run = session(publisher)
    run.publish(record(wanted, PARTITIONS))
    publisher.flush()
    sent = list(rows(record(wanted, PARTITIONS)))
    for partition in range(PARTITIONS):
        found = [(r.timestamp_ms, r.key, r.value) for r in read_topic(client, topic) if r.partition == partition]
        assert found == [(arrival, key, value) for where, arrival, key, value in sent if where == partition]
        assert found
    assert publisher.delivered == len(sent) == run.progress.records
    assert run.progress.of("heartbeats") == 60 * PARTITIONS


def test_existing_topic_keeps_its_partitions(kafka: Any, make_topic: Callable[..., str]) -> None:
    assert ensure_topic(kafka.client_options, make_topic(partitions=2), 9) == 2


def test_made_topic_takes_event_time_far_ahead_of_the_clock(kafka: Any) -> None:
    topic = f"ahead-{uuid.uuid4().hex}"
    ensure_topic(kafka.client_options, topic, 1)
    publisher = Publisher(kafka.client_options, topic)
    publisher.send(chunk([4_000_000_000_000]).records)
    publisher.flush()
    assert [r.timestamp_ms for r in read_topic(kafka.client_options, topic)] == [4_000_000_000_000]


def test_failed_delivery_is_never_forgotten(kafka: Any, make_topic: Callable[..., str]) -> None:
    topic = make_topic(partitions=1, max_message_bytes="2000")
    publisher = Publisher({**kafka.client_options, "linger.ms": "0", "compression.type": "none"}, topic)
    publisher.send(chunk([START_MS]).records)
    publisher.flush()
    assert publisher.delivered == 1
    publisher.send(chunk([START_MS], size=5000).records)
    with pytest.raises(PublishError, match=f"1 of 2 records were not delivered to {topic}: .*too large"):
        publisher.flush()
    with pytest.raises(PublishError):
        publisher.send(chunk([START_MS]).records)
    assert publisher.delivered < publisher.handed


def test_refused_event_time_says_which_setting_of_the_topic_to_raise(
    kafka: Any, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(partitions=1, message_timestamp_after_max_ms="1000")
    publisher = Publisher(kafka.client_options, topic)
    publisher.send(chunk([4_000_000_000_000]).records)
    with pytest.raises(PublishError, match=r"raise the topic's message\.timestamp\.after\.max\.ms"):
        publisher.flush()


def test_absent_broker_is_one_line_with_its_address(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.publish.METADATA_TIMEOUT_S", 1.0)
    address = f"127.0.0.1:{free_port}"
    with pytest.raises(PublishError, match=f"kafka at {address} can't serve topic events: [^\n]*$"):
        ensure_topic({"bootstrap.servers": address}, "events", 1)


def test_absent_broker_does_not_swallow_records(free_port: int) -> None:
    publisher = Publisher({"bootstrap.servers": f"127.0.0.1:{free_port}"}, "events")
    publisher.send(chunk([START_MS]).records)
    with pytest.raises(PublishError, match=r"1 of 1 records were not acknowledged on events within 0\.1 s"):
        publisher.flush(0.1)


def test_full_queue_is_waited_for(kafka: Any, make_topic: Callable[..., str]) -> None:
    topic = make_topic(partitions=1)
    publisher = Publisher({**kafka.client_options, "queue.buffering.max.messages": "50"}, topic)
    publisher.send(chunk([START_MS + number for number in range(1000)]).records)
    publisher.flush()
    assert [r.timestamp_ms for r in read_topic(kafka.client_options, topic)] == list(range(START_MS, START_MS + 1000))


def test_set_stop_ends_publishing_and_counts_what_was_sent(kafka: Any, make_topic: Callable[..., str]) -> None:
    stop = threading.Event()
    publisher = Publisher(kafka.client_options, make_topic(partitions=1))
    run = Session(
        publisher,
        None,
        pace=Pace(START_MS, 1.0),
        stop=stop,
        on_progress=lambda sent: stop.set() if sent.records else None,
    )
    run.publish([chunk([START_MS, START_MS + 3_600_000]), chunk([START_MS + 7_200_000])])
    publisher.flush()
    assert run.progress.records == publisher.delivered == 1
    assert run.progress.event_time_ms == START_MS


def test_what_is_on_its_way_when_the_recording_ends_is_not_waited_for(
    kafka: Any, make_topic: Callable[..., str]
) -> None:
    publisher = Publisher(kafka.client_options, make_topic(partitions=1))
    run = session(publisher, speed=1.0)
    late = chunk([START_MS + 3_600_000, START_MS + 7_200_000])
    late.paced = False
    run.publish([chunk([START_MS]), late])
    assert run.progress.records == 3


def test_nothing_is_sent_before_its_time(kafka: Any, make_topic: Callable[..., str]) -> None:
    stop = threading.Event()
    speed = 50.0
    publisher = Publisher(kafka.client_options, make_topic(partitions=1))
    looks: list[tuple[int, float]] = []

    def look(sent: Progress) -> None:
        looks.append((sent.event_time_ms, time.monotonic()))
        if sent.records >= 3:
            stop.set()

    run = Session(publisher, None, pace=Pace(START_MS, speed), stop=stop, on_progress=look)
    begun_s = time.monotonic()
    run.publish([chunk([START_MS + 1000 * number for number in range(1000)])])
    assert 3 <= run.progress.records < 1000
    assert all(event_ms - START_MS <= (now_s - begun_s) * 1000 * speed for event_ms, now_s in looks)


@pytest.mark.parametrize(
    ("speed", "elapsed_s", "reached"), [(1.0, 2.0, START_MS + 2000), (60.0, 2.0, START_MS + 120_000)]
)
def test_pace_turns_wall_time_into_event_time_and_back(speed: float, elapsed_s: float, reached: float) -> None:
    pace = Pace(START_MS, speed)
    assert pace.reached_ms(elapsed_s) == reached
    assert pace.wait_s(int(reached), elapsed_s) == pytest.approx(0.0)
    assert pace.wait_s(int(reached) + 6000, elapsed_s) == pytest.approx(6.0 / speed)


def test_speed_zero_never_waits() -> None:
    pace = Pace(START_MS, 0.0)
    assert pace.wait_s(START_MS + 10**12, 0.0) == 0.0
    assert pace.reached_ms(0.0) == float("inf")


def test_default_partitioner_of_the_client_agrees_with_ours(kafka: Any, make_topic: Callable[..., str]) -> None:
    topic = make_topic(partitions=PARTITIONS)
    keys = [f"service-{number}".encode() for number in range(20)]
    produce(kafka.client_options, topic, [NewRecord(b"{}", key=key) for key in keys])
    assert {r.key: r.partition for r in read_topic(kafka.client_options, topic)} == {
        key: partition_of(key, PARTITIONS) for key in keys
    }

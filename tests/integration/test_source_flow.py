"""The anomaly flow and its input: many partitions and few, stops in the middle, partitions that rest and wake up."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from sources.groups import committed_offsets
from tests.dirty_log import START_MS, dirty_log, event
from tests.flow_process import FlowProcess, settings_for
from tests.integration.test_anomaly import KAFKA_MS, assert_equals_oracle, publish, windows_in
from tests.kafka_log import NewRecord, create_topic, end_offsets, produce, read_topic, wait_for_records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics

SLIDE_MS = 10_000
SECONDS = 900
PER_SECOND = 700


def delete_and_make(kafka: KafkaCluster, topic: str, partitions: int) -> None:
    """Replace the empty input topic by one with another number of partitions."""
    admin = AdminClient(dict(kafka.client_options))
    admin.delete_topics([topic], operation_timeout=15)[topic].result(15)
    deadline = time.monotonic() + 60
    while topic in admin.list_topics(timeout=15).topics and time.monotonic() < deadline:
        time.sleep(0.1)
    create_topic(kafka.client_options, topic, partitions=partitions)


def beats(partition: int, seconds: range, *, service: str = "a") -> list[NewRecord]:
    """One event a second of event time in one partition."""
    return [NewRecord(event(START_MS + 1000 * at, service), None, partition, timestamp_ms=KAFKA_MS) for at in seconds]


def ends_of(kafka: KafkaCluster, topics: Topics, service: str) -> dict[int, int]:
    """Read the counts of a service by window end, in seconds after the start."""
    rows = [json.loads(record.value or b"") for record in read_topic(kafka.client_options, topics.windows)]
    return {(row["window_end_ms"] - START_MS) // 1000: row["count"] for row in rows if row["service"] == service}


def wait_for_end(kafka: KafkaCluster, topics: Topics, service: str, end_s: int) -> None:
    """Wait for the window of a service that ends so many seconds after the start."""

    def there(_: object) -> bool:
        return end_s in ends_of(kafka, topics, service)

    wait_for_records(kafka.client_options, topics.windows, there)


def eventually(what: Callable[[], bool], timeout_s: float = 60.0) -> bool:
    """Tell whether something becomes true in time."""
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def committed(kafka: KafkaCluster, topics: Topics) -> dict[int, int]:
    """Read the offsets that lag tools see of the flow."""
    group = f"{topics.prefix}-group"
    wanted = [TopicPartition(topics.events, partition) for partition in range(4)]
    found = committed_offsets(kafka.client_options, group, wanted)
    return {partition: offset for (_, partition), offset in found.items()}


@pytest.mark.parametrize("partitions", [1, 3, 64])
def test_rows_are_those_of_the_oracle_whatever_the_number_of_partitions(
    kafka: KafkaCluster, topics: Topics, partitions: int
) -> None:
    delete_and_make(kafka, topics.events, partitions)
    oracle = publish(kafka, topics, dirty_log(31, partitions=partitions, records=2000, span_ms=300_000))
    codes, said = FlowProcess(settings_for(kafka, topics, KAFKA__STOP_AT_END="true")).run()
    assert codes == [0], said
    assert_equals_oracle(windows_in(kafka, topics), oracle)


@pytest.mark.parametrize(("processes", "workers"), [(1, 1), (1, 2), (2, 1)])
def test_stop_in_the_middle_of_catching_up_is_clean_and_the_rest_comes_later(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, processes: int, workers: int
) -> None:
    one = b'{"timestamp_ms":%d,"service":"a","latency_ms":1}'
    arrays = [b"[" + b",".join([one % (START_MS + 1000 * second)] * PER_SECOND) + b"]" for second in range(SECONDS)]
    records = [NewRecord(array, None, n % 4, timestamp_ms=KAFKA_MS) for n, array in enumerate(arrays)]
    produce(kafka.client_options, topics.events, records)
    recovery = tmp_path / "recovery"
    flow = FlowProcess(settings_for(kafka, topics), recovery, processes=processes, workers=workers)
    flow.start().serving()
    wait_for_records(kafka.client_options, topics.windows, 1)
    flow.signal(signal.SIGTERM)
    codes, said = flow.wait()
    assert codes == [0] * processes, said
    stopped_at, ends = committed(kafka, topics), end_offsets(kafka.client_options, topics.events)
    assert all(offset <= ends[partition] for partition, offset in stopped_at.items())
    before = len(read_topic(kafka.client_options, topics.windows))
    assert before < SECONDS * 1000 // SLIDE_MS, "a drained flow keeps its open windows"
    env = settings_for(kafka, topics, KAFKA__STOP_AT_END="true")
    codes, said = FlowProcess(env, recovery, processes=processes, workers=workers).run()
    assert codes == [0] * processes, said
    counts = ends_of(kafka, topics, "a")
    assert {end: counts[end] for end in range(10, SECONDS + 1, 10)} == {
        end: PER_SECOND * min(end, 60) for end in range(10, SECONDS + 1, 10)
    }
    assert committed(kafka, topics) == ends


def test_offsets_that_others_commit_to_the_group_change_nothing(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    oracle = publish(kafka, topics, dirty_log(32, partitions=4, records=1000, span_ms=200_000))
    group = f"{topics.prefix}-group"
    places = [TopicPartition(topics.events, partition, 100) for partition in range(4)]
    admin = AdminClient(dict(kafka.client_options))
    request = ConsumerGroupTopicPartitions(group, places)
    admin.alter_consumer_group_offsets([request], request_timeout=15)[group].result(15)
    codes, said = FlowProcess(settings_for(kafka, topics, KAFKA__STOP_AT_END="true"), tmp_path / "recovery").run()
    assert codes == [0], said
    assert_equals_oracle(windows_in(kafka, topics), oracle)


def test_resting_partition_holds_nothing_back_and_what_it_brings_behind_closed_windows_is_late(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    env = settings_for(kafka, topics, WINDOW__IDLE_AFTER_MS="1000")
    flow = FlowProcess(env, tmp_path / "recovery").start().serving()
    produce(kafka.client_options, topics.events, [*beats(0, range(100)), *beats(1, range(20), service="b")])
    wait_for_end(kafka, topics, "a", 90)
    woken = [*beats(1, range(20, 40), service="b"), *beats(1, range(200, 230), service="b")]
    produce(kafka.client_options, topics.events, woken)
    assert eventually(lambda: committed(kafka, topics).get(1) == 70)
    produce(kafka.client_options, topics.events, beats(0, range(230, 400)))
    wait_for_end(kafka, topics, "a", 390)
    flow.signal(signal.SIGTERM)
    codes, said = flow.wait()
    assert codes == [0], said
    a, b = ends_of(kafka, topics, "a"), ends_of(kafka, topics, "b")
    assert (a[60], a[390]) == (60, 60)
    assert (b[20], b[30], b[40], b[230]) == (20, 20, 20, 30)


def test_events_that_came_while_the_process_stood_still_are_not_late(kafka: KafkaCluster, topics: Topics) -> None:
    """A suspended machine wakes up to partitions that were silent to it and to nobody else."""
    flow = FlowProcess(settings_for(kafka, topics, WINDOW__IDLE_AFTER_MS="2000")).start().serving()
    produce(kafka.client_options, topics.events, [r for p in range(4) for r in beats(p, range(60), service=f"s{p}")])
    wait_for_end(kafka, topics, "s0", 50)
    flow.signal(signal.SIGSTOP)
    for partition in range(4):
        produce(kafka.client_options, topics.events, beats(partition, range(60, 400), service=f"s{partition}"))
    time.sleep(3.0)
    flow.signal(signal.SIGCONT)
    wait_for_end(kafka, topics, "s3", 390)
    flow.signal(signal.SIGTERM)
    codes, said = flow.wait()
    assert codes == [0], said
    for partition in range(4):
        counts = ends_of(kafka, topics, f"s{partition}")
        assert {counts[end] for end in range(120, 400, 10)} == {60}, partition


def test_job_that_reads_to_the_end_stops_there_though_a_producer_goes_on(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    produce(kafka.client_options, topics.events, [r for p in range(4) for r in beats(p, range(200), service=f"s{p}")])
    flow = FlowProcess(settings_for(kafka, topics, KAFKA__STOP_AT_END="true"), tmp_path / "recovery").start()
    second = 200
    while flow.running[0].poll() is None and second < 200_000:
        later = range(second, second + 20)
        produce(kafka.client_options, topics.events, [r for p in range(4) for r in beats(p, later, service="later")])
        second += 20
        time.sleep(0.05)
    codes, said = flow.wait()
    assert codes == [0], said
    reached, ends = committed(kafka, topics), end_offsets(kafka.client_options, topics.events)
    assert all(200 <= reached[partition] < ends[partition] for partition in range(4))
    for partition in range(4):
        assert ends_of(kafka, topics, f"s{partition}")[200] == 60
    # Every record before the offsets that were reached counts, and none behind them.
    rows = [json.loads(r.value or b"") for r in read_topic(kafka.client_options, topics.windows)]
    last = [row for row in rows if row["service"] == "later" and row["window_end_ms"] % 60_000 == START_MS % 60_000]
    assert sum(row["count"] for row in last) == sum(reached.values()) - 800


def test_unusual_records_end_where_a_person_would_look_for_them(kafka: KafkaCluster, topics: Topics) -> None:
    """Unicode, extremes, 10,000 events in one record, five megabytes, nothing at all: in windows or dead letters."""
    mib = 1_048_576
    odd = f"{topics.prefix}.odd"
    create_topic(kafka.client_options, odd, partitions=1, max_message_bytes=str(8 * mib))
    series = [("münchen-🚀", "/ü?|&\n"), ("a|b", ""), ("x" * 128, "/" + "y" * 255)]
    good = [event(START_MS, service, endpoint, latency) for service, endpoint in series for latency in (0, 1e7)]
    array = b"[" + b",".join([event(START_MS, "many", "", 5)] * 10_000) + b"]"
    nested = event(START_MS, "nested")[:-1] + b',"x":' + b"[" * 100 + b"]" * 100 + b"}"
    padded = event(START_MS, "large")[:-1] + b',"pad":"' + b"x" * (mib - 200) + b'"}'
    too_deep = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    bad = [None, b"", too_deep, b"z" * (5 * mib), event(START_MS, "x" * 129), event(START_MS, "a", "y" * 257)]
    values = [*good, array, b"[]", nested, padded, *bad]
    produce(kafka.client_options, odd, [NewRecord(v, "ключ".encode(), 0, (("h", b"\x00"),), KAFKA_MS) for v in values])
    env = settings_for(kafka, topics, KAFKA__STOP_AT_END="true", KAFKA__TOPICS__EVENTS=odd)
    codes, said = FlowProcess(env).run()
    assert codes == [0], said
    first = {key[:2]: row for key, row in windows_in(kafka, topics).items() if key[2] == START_MS + SLIDE_MS}
    assert {key: row["count"] for key, row in first.items()} == {
        **dict.fromkeys(series, 2),
        ("many", ""): 10_000,
        ("nested", "/"): 1,
        ("large", "/"): 1,
    }
    assert {(first[key]["max_ms"], first[key]["mean_ms"]) for key in series} == {(1e7, 5e6)}
    letters = read_topic(kafka.client_options, topics.dead_letter)
    assert [letter.value for letter in letters] == bad
    assert {letter.key for letter in letters} == {"ключ".encode()}
    assert [dict(letter.headers)["dlq.error.reason"] for letter in letters] == [
        b"empty_value", b"empty_value", b"too_deep", b"too_large", b"wrong_length", b"wrong_length"
    ]  # fmt: skip
    assert {letter.headers[0] for letter in letters} == {("h", b"\x00")}

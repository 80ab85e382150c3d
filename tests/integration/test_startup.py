"""A flow that can't start, or can't go on, says why in one line and ends with the exit code of the contract."""

from __future__ import annotations

import signal
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient

from tests.dirty_log import START_MS, event
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import NewRecord, create_topics, produce, read_topic, wait_for_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics

KAFKA_MS = START_MS + 3_600_000
NOBODY = "127.0.0.1:1"


def delete_topic(kafka: KafkaCluster, topic: str) -> None:
    admin = AdminClient(dict(kafka.client_options))
    admin.delete_topics([topic], operation_timeout=15)[topic].result(15)


def publish(kafka: KafkaCluster, topics: Topics, seconds: range) -> None:
    values = [event(START_MS + 1000 * second, "a") for second in seconds]
    records = [NewRecord(value, None, partition, (), KAFKA_MS) for value in values for partition in range(4)]
    produce(kafka.client_options, topics.events, records)


@pytest.fixture
def running(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> Iterator[FlowProcess]:
    """A flow that runs on the topics of the test."""
    flow = FlowProcess(settings_for(kafka, topics), tmp_path / "recovery").start().serving()
    yield flow
    flow.kill()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("WINDOW__SLIDE_MS", "7000", "TAILMARK_WINDOW__SLIDE_MS=7000: must divide window.length_ms"),
        ("WINDOW__SLYDE_MS", "7000", "TAILMARK_WINDOW__SLYDE_MS"),
        ("KAFKA__SOURCE_SHARDS", "none", "TAILMARK_KAFKA__SOURCE_SHARDS=none: "),
        ("CONFIG", "no-such-file.toml", "no-such-file.toml"),
    ],
)
def test_impossible_setting_ends_the_flow_before_it_looks_for_a_broker(key: str, value: str, said: str) -> None:
    env = {"TAILMARK_KAFKA__BOOTSTRAP_SERVERS": NOBODY, f"TAILMARK_{key}": value}
    codes, stderr = FlowProcess(env).run()
    assert codes == [2]
    assert said in stderr
    assert len(stderr.splitlines()) == 1


def test_absent_broker_is_named(kafka: KafkaCluster, topics: Topics) -> None:
    env = settings_for(kafka, topics) | {"TAILMARK_KAFKA__BOOTSTRAP_SERVERS": NOBODY}
    codes, stderr = FlowProcess(env).run()
    assert (codes, len(stderr.splitlines())) == ([1], 1)
    assert f"kafka at {NOBODY} did not answer" in stderr
    assert "refused" in stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_flow_that_still_looks_for_its_cluster_ends_on_a_signal_at_once(
    kafka: KafkaCluster, topics: Topics, number: signal.Signals
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        mute.settimeout(60)
        port = mute.getsockname()[1]
        flow = FlowProcess(settings_for(kafka, topics) | {"TAILMARK_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{port}"})
        flow.start()
        with closing(mute.accept()[0]):
            flow.signal(number)
            assert flow.wait() == ([0], "")


def test_missing_topic_is_named_and_not_created(kafka: KafkaCluster, topics: Topics) -> None:
    absent = f"{topics.prefix}.absent"
    codes, stderr = FlowProcess(settings_for(kafka, topics, KAFKA__TOPICS__EVENTS=absent)).run()
    assert (codes, len(stderr.splitlines())) == ([1], 1)
    assert f"topic `{absent}` does not exist" in stderr
    assert absent not in AdminClient(dict(kafka.client_options)).list_topics(timeout=15).topics


def test_topics_that_somebody_created_with_the_defaults_of_the_broker_are_written_to(
    kafka: KafkaCluster, topics: Topics
) -> None:
    create_topics(kafka.client_options, [topics.windows, topics.alerts, topics.dead_letter], partitions=3)
    create_topics(kafka.client_options, [topics.alerts_state], partitions=1, cleanup_policy="compact")
    publish(kafka, topics, range(100))
    produce(kafka.client_options, topics.events, [NewRecord(b"not an event", b"key", 0, (), KAFKA_MS)])
    codes, stderr = FlowProcess(settings_for(kafka, topics, KAFKA__STOP_AT_END="true")).run()
    assert codes == [0], stderr
    assert len(read_topic(kafka.client_options, topics.windows)) == 15
    assert [letter.value for letter in read_topic(kafka.client_options, topics.dead_letter)] == [b"not an event"]


def test_taken_port_is_named(kafka: KafkaCluster, topics: Topics) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        codes, stderr = FlowProcess(settings_for(kafka, topics, PROMETHEUS__PORT=str(port))).run()
    assert (codes, len(stderr.splitlines())) == ([1], 1)
    assert f"port {port} of 127.0.0.1" in stderr
    assert "TAILMARK_PROMETHEUS__PORT" in stderr


def test_recovery_directory_of_a_running_flow_is_refused(
    kafka: KafkaCluster, topics: Topics, running: FlowProcess
) -> None:
    codes, stderr = FlowProcess(settings_for(kafka, topics), running.recovery).run()
    assert (codes, len(stderr.splitlines())) == ([1], 1)
    assert f"recovery directory {running.recovery} is" in stderr
    assert f"pid {running.running[0].pid}" in stderr
    assert running.running[0].poll() is None


def test_setting_that_gives_the_state_its_meaning_is_not_changed_on_the_way(
    kafka: KafkaCluster, topics: Topics, running: FlowProcess
) -> None:
    publish(kafka, topics, range(100))
    wait_for_records(kafka.client_options, topics.windows, 3)
    running.signal(signal.SIGTERM)
    assert running.wait()[0] == [0]
    before = read_topic(kafka.client_options, topics.windows)
    changed = settings_for(kafka, topics, WINDOW__SLIDE_MS="20000", KAFKA__STOP_AT_END="true")
    codes, stderr = FlowProcess(changed, running.recovery).run()
    assert (codes, len(stderr.splitlines())) == ([1], 1)
    assert "made with window.slide_ms = 10000, now 20000" in stderr
    assert "set it back" in stderr
    assert read_topic(kafka.client_options, topics.windows) == before
    unchanged = settings_for(kafka, topics, KAFKA__STOP_AT_END="true")
    assert FlowProcess(unchanged, running.recovery).run()[0] == [0]
    ends = [record.key for record in read_topic(kafka.client_options, topics.windows)]
    assert len(ends) == 15


def test_flow_without_recovery_runs_and_a_second_run_writes_nothing_twice(kafka: KafkaCluster, topics: Topics) -> None:
    publish(kafka, topics, range(100))
    env = settings_for(kafka, topics, KAFKA__STOP_AT_END="true")
    assert FlowProcess(env).run()[0] == [0]
    first = read_topic(kafka.client_options, topics.windows)
    assert len(first) == 15
    assert FlowProcess(env).run()[0] == [0]
    assert read_topic(kafka.client_options, topics.windows) == first


@pytest.mark.parametrize("processes", [1, 2])
def test_input_topic_that_is_deleted_ends_the_flow_with_its_reason(
    kafka: KafkaCluster, topics: Topics, processes: int
) -> None:
    env = settings_for(kafka, topics) | {"RUST_BACKTRACE": "1"}
    flow = FlowProcess(env, processes=processes).start().serving()
    publish(kafka, topics, range(100))
    wait_for_records(kafka.client_options, topics.windows, 1)
    delete_topic(kafka, topics.events)
    codes, stderr = flow.wait()
    assert codes == [1] * processes
    lines = [line for line in stderr.splitlines() if "retrying" not in line]
    assert len([line for line in lines if f"topic `{topics.events}` was deleted" in line]) >= 1
    assert len(lines) == processes, "each process says one thing"
    assert {line.partition(":")[0] for line in lines} == {"tailmark"}


def test_output_topic_that_is_deleted_ends_the_flow_with_its_reason(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    quick = {"KAFKA__OPTIONS__MESSAGE_TIMEOUT_MS": "5000", "KAFKA__OPTIONS__TOPIC_METADATA_PROPAGATION_MAX_MS": "2000"}
    env = settings_for(kafka, topics, **quick) | {"RUST_BACKTRACE": "1"}
    flow = FlowProcess(env, tmp_path / "recovery").start().serving()
    publish(kafka, topics, range(100))
    wait_for_records(kafka.client_options, topics.windows, 3)
    delete_topic(kafka, topics.windows)
    publish(kafka, topics, range(100, 200))
    codes, stderr = flow.wait(150)
    said = [line for line in stderr.splitlines() if line.startswith("tailmark: ")]
    assert codes == [1]
    assert len(said) == 1, stderr
    assert topics.windows in said[0]
    assert "Traceback" not in stderr
    assert "stack backtrace" not in stderr

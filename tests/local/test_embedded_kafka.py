"""One broker: what lasts, what is refused, what is recovered."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from local.errors import EmbeddedKafkaError
from local.kafka import EmbeddedKafka
from tests.kafka_log import create_topic, produce, read_topic, topic_names

StartKafka = Callable[..., EmbeddedKafka]
MIB = 1024 * 1024


def check_until_it_fails(kafka: EmbeddedKafka) -> None:
    while True:
        kafka.check()
        time.sleep(0.05)


def values(options: dict[str, str], topic: str) -> list[bytes | None]:
    return [record.value for record in read_topic(options, topic)]


def test_records_outlast_a_stop_and_the_loss_of_the_directory_s_identity(
    start_kafka: StartKafka, tmp_path: Path, free_port: int
) -> None:
    kafka = start_kafka(port=free_port)
    assert kafka.bootstrap_servers == f"127.0.0.1:{free_port}"
    create_topic(kafka.client_options, "kept", partitions=1)
    produce(kafka.client_options, "kept", [b"x" * MIB, b"small"])
    kafka.stop()
    (tmp_path / "kafka" / "node-1" / "data" / "meta.properties").unlink()

    kafka = start_kafka()
    assert values(kafka.client_options, "kept") == [b"x" * MIB, b"small"]
    assert "STARTED" in kafka.log_path().read_text(encoding="utf-8")


def test_half_formatted_directory_is_formatted_again(start_kafka: StartKafka, tmp_path: Path) -> None:
    data = tmp_path / "kafka" / "node-1" / "data"
    data.mkdir(parents=True)
    (data / "bootstrap.checkpoint").write_bytes(b"half")
    kafka = start_kafka()
    create_topic(kafka.client_options, "made")
    assert topic_names(kafka.client_options) == {"made"}


def test_broker_outlives_the_thread_that_started_it_and_is_alone_on_its_directory(start_kafka: StartKafka) -> None:
    started: list[EmbeddedKafka] = []
    thread = threading.Thread(target=lambda: started.append(start_kafka()))
    thread.start()
    thread.join()
    (kafka,) = started
    options = kafka.client_options
    with pytest.raises(EmbeddedKafkaError, match="is in use by another embedded Apache Kafka"):
        start_kafka()
    with pytest.raises(KafkaException, match=r"UNKNOWN_TOPIC|Unknown topic"):
        produce(options, "misspelt", [b"value"])
    assert topic_names(options) == set()
    kafka.check()

    kafka.kill()
    with pytest.raises(EmbeddedKafkaError, match="broker 1 does not run"):
        kafka.freeze()
    kafka.start_broker()
    assert kafka.client_options == options
    assert AdminClient({**options}).list_topics(timeout=10).brokers.keys() == {1}

    os.kill(kafka.pid(), signal.SIGKILL)
    with pytest.raises(EmbeddedKafkaError, match=r"^broker 1 ended: .*; its log is .*kafka\.log$"):
        check_until_it_fails(kafka)


def test_configuration_that_kafka_refuses_is_one_line(start_kafka: StartKafka) -> None:
    with pytest.raises(EmbeddedKafkaError, match=r"^cannot format .*num\.io\.threads.*$"):
        start_kafka(properties={"num.io.threads": "0"})


def test_taken_port_is_named(start_kafka: StartKafka) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedKafkaError, match=f"^port {port} is taken by another program"):
            start_kafka(port=port)


def test_directory_that_holds_something_else_is_left_alone(start_kafka: StartKafka, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(EmbeddedKafkaError, match=r"it holds `thesis\.txt`"):
        start_kafka(".")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("port", "brokers"), [(0, 0), (0, 10), (-1, 1), (65_535, 3)])
def test_impossible_arguments_are_refused(port: int, brokers: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must"):
        EmbeddedKafka(tmp_path, port=port, brokers=brokers)

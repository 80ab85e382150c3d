"""What librdkafka says through the sinks' clients: heard, and without secrets."""

from __future__ import annotations

import logging
import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from sources.clients import Reasons, reason, redacted, unavailable, with_log

CLIENT = {"bootstrap.servers": "broker:9092", "sasl.username": "ann", "sasl.password": "hunter2", "ssl.key.pem": "----"}


@pytest.mark.parametrize(
    "name", ["sasl.password", "ssl.key.password", "ssl.keystore.password", "ssl.key.pem", "sasl.oauthbearer.config",
             "sasl.oauthbearer.client.secret", "sasl.jaas.config"]
)  # fmt: skip
def test_the_value_of_a_secret_option_is_masked_wherever_it_stands(name: str) -> None:
    assert redacted("bad value hunter2: hunter2", {name: "hunter2"}) == "bad value ***: ***"


def test_errors_are_one_line_without_secrets() -> None:
    error = KafkaException(KafkaError(KafkaError._FAIL, "login of ann\nwith hunter2 failed"))
    assert reason(error, CLIENT) == "login of ann with *** failed"
    assert "hunter2" not in unavailable({**CLIENT, "bootstrap.servers": "hunter2:1"}, "is gone")


def test_what_librdkafka_logs_reaches_python_without_secrets(caplog: pytest.LogCaptureFixture, free_port: int) -> None:
    client = {"bootstrap.servers": f"127.0.0.1:{free_port}", "ssl.key.password": "Connection"}
    producer = Producer(with_log(client, {}))
    deadline = time.monotonic() + 30
    with caplog.at_level(logging.DEBUG):
        while not caplog.records and time.monotonic() < deadline:
            producer.poll(0.1)
    assert "*** refused" in caplog.text
    assert "Connection" not in caplog.text


def test_a_broker_that_is_gone_is_complained_of_once_by_all_clients_together(
    caplog: pytest.LogCaptureFixture, free_port: int
) -> None:
    client = {"bootstrap.servers": f"127.0.0.1:{free_port}", "reconnect.backoff.ms": 1, "reconnect.backoff.max.ms": 5}
    producers = [Producer(with_log(client, {})) for _ in range(4)]
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for producer in producers:
            producer.poll(0.05)
    said = [line for line in caplog.messages if f"127.0.0.1:{free_port} failed" in line]
    assert len(said) == 1, said


def test_options_that_only_producers_have_are_no_news_to_a_consumer(caplog: pytest.LogCaptureFixture) -> None:
    client = {"bootstrap.servers": "localhost:9", "group.id": "g", "compression.type": "lz4", "log_level": 7}
    with caplog.at_level(logging.DEBUG):
        consumer = Consumer(with_log(client, {"debug": "conf"}))
        deadline = time.monotonic() + 30
        while "group.id" not in caplog.text and time.monotonic() < deadline:
            consumer.poll(0.1)
        consumer.close()
    assert "group.id" in caplog.text, "the log is heard"
    assert "will be ignored" not in caplog.text


def test_a_refusal_is_remembered_over_what_follows_from_it() -> None:
    reasons = Reasons()
    reasons(KafkaError(KafkaError._TRANSPORT, "b:1/bootstrap: Connect to ipv4#b:1 failed (after 0ms in state CONNECT)"))
    assert (reasons.last, reasons.refused) == ("Connect to ipv4#b:1 failed", False)
    reasons(KafkaError(KafkaError._AUTHENTICATION, "b:1/bootstrap: SASL authentication error: no"))
    reasons(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    reasons(KafkaError(KafkaError._TRANSPORT, "later"))
    assert (reasons.last, reasons.refused) == ("SASL authentication error: no", True)

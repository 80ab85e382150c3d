"""TLS and SASL: who knows the password gets in, nobody else does, and secrets stay where they belong."""

import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from local.errors import EmbeddedKafkaError
from local.kafka import EmbeddedKafka
from local.security import Scram
from local.tls import make_tls_files
from tests.kafka_log import create_topic, produce, read_topic

ERROR_WAIT_S = 30.0


def errors_of_client(options: dict[str, str]) -> set[int]:
    """Return the codes of the errors that a client which cannot connect reports."""
    reported: list[KafkaError] = []
    callbacks: dict[str, Any] = {"error_cb": reported.append}
    client = AdminClient({**options, **callbacks, "log_level": 0})
    deadline = time.monotonic() + ERROR_WAIT_S
    while not reported and time.monotonic() < deadline:
        client.poll(0.1)
    with pytest.raises(KafkaException):
        client.list_topics(timeout=0.5)
    return {error.code() for error in reported}


def test_only_the_right_password_over_tls_gets_in(start_kafka: Callable[..., EmbeddedKafka], tmp_path: Path) -> None:
    kafka = start_kafka(security=Scram("alice", "correct-horse"))
    options = kafka.client_options
    assert options["security.protocol"] == "SASL_SSL"
    create_topic(options, "secret")
    produce(options, "secret", [b"value"])
    assert [record.value for record in read_topic(options, "secret")] == [b"value"]

    assert KafkaError._AUTHENTICATION in errors_of_client({**options, "sasl.password": "wrong"})
    assert KafkaError._AUTHENTICATION in errors_of_client({**options, "sasl.username": "mallory"})
    foreign = make_tls_files(tmp_path / "foreign").authority
    assert KafkaError._SSL in errors_of_client({**options, "ssl.ca.location": str(foreign)})
    assert errors_of_client({"bootstrap.servers": kafka.bootstrap_servers})

    kafka.stop()
    with pytest.raises(EmbeddedKafkaError, match="holds a cluster with another user or without TLS and SASL"):
        start_kafka(security=Scram("bob"))
    for file in (tmp_path / "kafka").rglob("*"):
        if file.is_file() and b"correct-horse" in file.read_bytes():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, f"{file} shows the password"


def test_password_is_not_part_of_the_text_form() -> None:
    assert "correct-horse" not in repr(Scram("alice", "correct-horse"))


@pytest.mark.parametrize("username", ["", "broker", "a b", 'a"b', "a,b"])
def test_user_name_that_would_break_the_configuration_is_refused(username: str) -> None:
    with pytest.raises(ValueError, match="`username` must be"):
        Scram(username)


@pytest.mark.parametrize("password", ["", "a b", 'a"b', "a\\b", "a\nb", "ä", "x" * 129])
def test_password_that_would_break_the_configuration_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="`password` must be"):
        Scram("alice", password)

"""The anomaly flow on a Kafka with TLS and SASL: exact rows for who may, one line for who may not, no secret told."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it exports
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from local.install import install
from local.kafka import EmbeddedKafka
from local.security import Scram
from local.tls import make_tls_files
from tests.archive_log import scan
from tests.dirty_log import dirty_log
from tests.faults.story import KAFKA_MS, topics_on
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import NewRecord, produce, read_topic, topic_names
from tests.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.conftest import KafkaCluster, Topics

PASSWORD = "correct-horse-battery"
WRONG_PASSWORD = "wrong-horse-battery"
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:broker;User:CN=localhost;User:alice",
}
LOOPBACK = "0100007F"
LISTENING = "0A"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker that lets nobody in without TLS and a password, and alice do everything."""
    directory = tmp_path_factory.mktemp("secured")
    scram = Scram("alice", PASSWORD)
    with EmbeddedKafka(directory, security=scram, properties=AUTHORIZER, runtime=install(say=print)) as broker:
        yield broker


def as_settings(options: Mapping[str, str]) -> dict[str, str]:
    """Spell client options as variables."""
    return {
        f"KAFKA__OPTIONS__{name.upper().replace('.', '_')}": value
        for name, value in options.items()
        if name != "bootstrap.servers"
    }


def the_one_line(output: str) -> str:
    """Return the only line of a flow that does not start; no password is in it."""
    assert PASSWORD not in output
    assert WRONG_PASSWORD not in output
    lines = output.splitlines()
    assert len(lines) == 1, output
    return lines[0]


def test_flow_with_tls_and_scram_gives_the_rows_of_the_oracle_and_tells_no_secret(secured: EmbeddedKafka) -> None:
    kafka, topics = topics_on(secured)
    log, oracle = dirty_log(11, partitions=4, records=2000, span_ms=200_000), Oracle()
    records = [NewRecord(value, b"k", p, timestamp_ms=KAFKA_MS) for p, values in enumerate(log) for value in values]
    for partition, values in enumerate(log):
        for offset, value in enumerate(values):
            oracle.record(partition, offset, value, KAFKA_MS)
    produce(kafka.client_options, topics.events, records)
    settings = as_settings(kafka.client_options)
    codes, output = FlowProcess(settings_for(kafka, topics, KAFKA__STOP_AT_END="true", **settings)).run()
    assert codes == [0], output
    assert PASSWORD not in output
    rows = [json.loads(record.value or b"") for record in read_topic(kafka.client_options, topics.windows)]
    found = {(row["service"], row["endpoint"], row["window_end_ms"]): (row["count"], row["errors"]) for row in rows}
    assert len(found) == len(rows)
    assert found == {key: (row["count"], row["errors"]) for key, row in oracle.windows().items()}


def test_password_may_come_from_a_file(secured: EmbeddedKafka, tmp_path: Path) -> None:
    kafka, topics = topics_on(secured)
    lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in kafka.client_options.items()]
    file = tmp_path / "tailmark.toml"
    file.write_text("\n".join(["[kafka.options]", *(line for line in lines if "bootstrap" not in line)]))
    env = {**settings_for(kafka, topics, KAFKA__STOP_AT_END="true"), "TAILMARK_CONFIG": str(file)}
    codes, output = FlowProcess(env).run()
    assert codes == [0], output
    assert PASSWORD not in output
    assert topics.windows in topic_names(kafka.client_options)


def test_wrong_password_is_one_line_without_it(secured: EmbeddedKafka) -> None:
    kafka, topics = topics_on(secured)
    settings = as_settings({**kafka.client_options, "sasl.password": WRONG_PASSWORD})
    codes, output = FlowProcess(settings_for(kafka, topics, **settings)).run()
    assert codes == [1], output
    assert f"kafka at {kafka.bootstrap_servers}" in the_one_line(output)
    assert "uthentication" in output


def test_unknown_authority_is_one_line(secured: EmbeddedKafka, tmp_path: Path) -> None:
    kafka, topics = topics_on(secured)
    foreign = make_tls_files(tmp_path / "foreign").authority
    settings = as_settings({**kafka.client_options, "ssl.ca.location": str(foreign)})
    codes, output = FlowProcess(settings_for(kafka, topics, **settings)).run()
    assert codes == [1], output
    assert f"kafka at {kafka.bootstrap_servers}" in the_one_line(output)
    assert "certificate verify failed" in output


def allow(options: Mapping[str, str], *rules: tuple[ResourceType, str, ResourcePatternType, AclOperation]) -> None:
    """Let bob do what the rules say; a resource is given by its kind and its name, or how its name begins."""
    rights = [
        AclBinding(kind, name, pattern, "User:bob", "*", operation, AclPermissionType.ALLOW)
        for kind, name, pattern, operation in rules
    ]
    admin = AdminClient(dict(options))
    for granted in admin.create_acls(rights).values():
        granted.result(30)


@pytest.fixture
def bob(secured: EmbeddedKafka) -> dict[str, str]:
    """Client options of a user who may do nothing."""
    made = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    admin = AdminClient(dict(secured.client_options))
    change = UserScramCredentialUpsertion("bob", made, password=PASSWORD.encode())
    for done in admin.alter_user_scram_credentials([change]).values():
        done.result(30)
    return {**secured.client_options, "sasl.username": "bob"}


def test_user_needs_the_rights_that_the_guarantees_list_and_no_others(
    secured: EmbeddedKafka, bob: dict[str, str]
) -> None:
    kafka, topics = topics_on(secured)
    event = b'{"timestamp_ms": 1763900000000, "service": "a", "latency_ms": 1}'
    produce(kafka.client_options, topics.events, [NewRecord(event, b"k", 0), NewRecord(b"{", b"k", 0)])
    flow = FlowProcess(settings_for(kafka, topics, KAFKA__STOP_AT_END="true", **as_settings(bob)))

    codes, output = flow.run()
    assert codes == [1], output
    assert f"topic `{topics.events}` does not exist, or this user may not see it" in the_one_line(output)

    literal, prefixed = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
    outputs = [topics.windows, topics.alerts, topics.alerts_state, topics.dead_letter]
    allow(
        kafka.client_options,
        (ResourceType.TOPIC, topics.events, literal, AclOperation.READ),
        *((ResourceType.TOPIC, topic, literal, AclOperation.CREATE) for topic in outputs),
        *((ResourceType.TOPIC, topic, literal, AclOperation.READ) for topic in outputs),
        *((ResourceType.TOPIC, topic, literal, AclOperation.WRITE) for topic in outputs),
        (ResourceType.GROUP, f"{topics.prefix}-group", literal, AclOperation.READ),
        (ResourceType.GROUP, "anomaly.", prefixed, AclOperation.READ),
        (ResourceType.TRANSACTIONAL_ID, "anomaly.", prefixed, AclOperation.WRITE),
    )
    codes, output = flow.run()
    assert codes == [0], output
    assert len(read_topic(kafka.client_options, topics.windows)) == 6
    assert len(read_topic(kafka.client_options, topics.dead_letter)) == 1


def test_archive_needs_no_rights_but_to_read(secured: EmbeddedKafka, bob: dict[str, str], tmp_path: Path) -> None:
    kafka, topics = topics_on(secured)
    event = b'{"timestamp_ms": 1763900000000, "service": "a", "latency_ms": 1}'
    produce(kafka.client_options, topics.events, [NewRecord(event, b"k", 0), NewRecord(b"{", b"k", 0)])
    allow(
        kafka.client_options,
        (ResourceType.TOPIC, topics.events, ResourcePatternType.LITERAL, AclOperation.READ),
        (ResourceType.GROUP, f"{topics.prefix}-group", ResourcePatternType.LITERAL, AclOperation.READ),
    )
    more = {"KAFKA__STOP_AT_END": "true", "ARCHIVE__PATH": str(tmp_path / "archive"), **as_settings(bob)}
    flow = FlowProcess(settings_for(kafka, topics, **more), flow="flows.archive")
    for _ in range(2):
        codes, output = flow.run()
        assert (codes, output) == ([0], "")
        assert scan(tmp_path / "archive").collect().height == 1


def test_flow_listens_on_nothing_but_its_page_on_the_loopback_address(kafka: KafkaCluster, topics: Topics) -> None:
    flow = FlowProcess(settings_for(kafka, topics)).start().serving()
    try:
        listening = addresses_listened_on(flow.running[0].pid)
    finally:
        flow.signal(signal.SIGTERM)
        codes, output = flow.wait()
    assert codes == [0], output
    assert listening == [f"{LOOPBACK}:{int(flow.env['TAILMARK_PROMETHEUS__PORT']):04X}"]


def addresses_listened_on(pid: int) -> list[str]:
    """List the addresses that a process listens on, in hexadecimal as the kernel shows them."""
    descriptors = {link.readlink().as_posix() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in descriptors:
                found.append(fields[1])
    return found

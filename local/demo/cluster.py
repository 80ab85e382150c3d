"""The Kafka of a demo: an embedded one, or topics of our own on one that was given."""

from __future__ import annotations

import shutil
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from flows.settings import Settings, load_settings
from local.demo.errors import DemoError
from local.install import install
from local.kafka import EmbeddedKafka
from local.ports import free_port, is_free
from local.runtime import KAFKA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from local.demo.progress import Progress

PARTITIONS: Final = 4
PAGE_PORT: Final = 8000
ANSWER_TIMEOUT_S: Final = 10.0

GIVEN: Final = ("KAFKA_BOOTSTRAP_SERVERS", "TAILMARK_KAFKA__BOOTSTRAP_SERVERS")
"""Variables that name a Kafka to use in place of an embedded one."""

_TOPICS: Final = ("events", "windows", "alerts", "alerts_state", "dead_letter", "truth")
_RETENTION_BYTES: Final = 256 * 1024 * 1024
_SEGMENT_BYTES: Final = 32 * 1024 * 1024
# A demo that is left running must not fill the disk.
_EMBEDDED_PROPERTIES: Final = {
    "log.retention.bytes": str(_RETENTION_BYTES),
    "log.segment.bytes": str(_SEGMENT_BYTES),
    "log.retention.check.interval.ms": "30000",
}
# Event time runs faster than the clock: left running, records are stamped with times that the broker would refuse.
_INPUT_CONFIG: Final = {
    "message.timestamp.after.max.ms": str(2**63 - 1),
    "retention.bytes": str(_RETENTION_BYTES),
    "segment.bytes": str(_SEGMENT_BYTES),
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a demo happens.

    Attributes:
        settings: Of the flow, the simulator and the view.
        environ: The same as the environment of a child process.
        name: For people.
        check: Raises when the Kafka ended by itself.
    """

    settings: Settings
    environ: dict[str, str]
    name: str
    check: Callable[[], None]

    @property
    def client(self) -> Mapping[str, Any]:
        """Options of a Kafka client that keeps its log lines to itself."""
        return self.settings.client({"client.id": "tailmark-demo", "log_level": 0})

    @property
    def page_url(self) -> str:
        """Address of the flow's Prometheus page."""
        prometheus = self.settings.prometheus
        return f"http://{prometheus.host}:{prometheus.port_for('anomaly', 0)}/metrics"


@contextmanager
def open_cluster(environ: Mapping[str, str], directory: Path, progress: Progress) -> Iterator[Cluster]:
    """Give a Kafka with fresh topics for as long as the context lasts, and clean up after it.

    Args:
        environ: The environment of this process; `GIVEN` in it names a Kafka to use. Without one, settings in it are
            left out, so that the demo is the same for everybody.
        directory: Where an embedded Kafka keeps its log and, until the end, its records.
        progress: Told what takes its time.

    Raises:
        DemoError: The given Kafka can't be used.
        EmbeddedKafkaError: The embedded one can't.
        SettingsError: The settings for the given one are wrong.
    """
    given = next((environ[name] for name in GIVEN if environ.get(name)), None)
    if given is not None:
        with _given(environ, given, progress) as cluster:
            yield cluster
        return
    runtime = install(say=progress.say)
    embedded = EmbeddedKafka(directory / "kafka", runtime=runtime, properties=_EMBEDDED_PROPERTIES)
    with progress.step(f"starting Apache Kafka {KAFKA_VERSION}"):
        embedded.start()
    try:
        yield _embedded(environ, embedded)
    finally:
        with progress.step("stopping Apache Kafka"):
            embedded.stop()
        shutil.rmtree(embedded.log_path().parent / "data", ignore_errors=True)


def _embedded(environ: Mapping[str, str], kafka: EmbeddedKafka) -> Cluster:
    own = {name: value for name, value in environ.items() if not name.startswith("TAILMARK_") and name not in GIVEN}
    own |= {"TAILMARK_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    own |= {"TAILMARK_PROMETHEUS__PORT": str(_page_port())}
    cluster = Cluster(load_settings(own), own, f"Apache Kafka {KAFKA_VERSION}", kafka.check)
    _create_topics(cluster)
    return cluster


@contextmanager
def _given(environ: Mapping[str, str], servers: str, progress: Progress) -> Iterator[Cluster]:
    prefix = f"tailmark-demo-{uuid.uuid4().hex[:8]}"
    own = {**environ, "TAILMARK_KAFKA__GROUP_ID": prefix, "TAILMARK_KAFKA__STOP_AT_END": "false"}
    own |= {f"TAILMARK_KAFKA__TOPICS__{name.upper()}": f"{prefix}.{name.replace('_', '-')}" for name in _TOPICS}
    own |= {"TAILMARK_PROMETHEUS__PORT": str(_page_port()), "TAILMARK_ALERTMANAGER__URLS": ""}
    cluster = Cluster(load_settings(own), own, f"the Kafka at {servers}", lambda: None)
    with progress.step(f"creating topics {prefix}.* on {cluster.name}"):
        _create_topics(cluster)
    try:
        yield cluster
    finally:
        with progress.step(f"deleting topics {prefix}.*"):
            _delete_topics(cluster)


def _page_port() -> int:
    """Choose the port of the flow's page: the usual one where nobody has it."""
    return PAGE_PORT if is_free(PAGE_PORT) else free_port()


def _create_topics(cluster: Cluster) -> None:
    """Create the topics that the simulator writes; the flow creates its own."""
    names = cluster.settings.kafka.topics
    new = [
        NewTopic(names.events, PARTITIONS, replication_factor=-1, config=_INPUT_CONFIG),
        NewTopic(names.truth, 1, replication_factor=-1, config=_INPUT_CONFIG),
    ]
    try:
        admin = AdminClient({**cluster.client})
        admin.list_topics(timeout=ANSWER_TIMEOUT_S)
        for created in admin.create_topics(new, request_timeout=ANSWER_TIMEOUT_S).values():
            created.result(ANSWER_TIMEOUT_S)
    except KafkaException as error:
        raise DemoError(f"{cluster.name} can't be used for the demo: {error.args[0].str()}") from error


def _delete_topics(cluster: Cluster) -> None:
    """Leave nothing behind on a Kafka that is not ours; what it refuses is left."""
    kafka = cluster.settings.kafka
    names = [getattr(kafka.topics, name) for name in _TOPICS]
    with suppress(KafkaException):
        admin = AdminClient({**cluster.client})
        groups = admin.list_consumer_groups(request_timeout=ANSWER_TIMEOUT_S).result().valid
        # The flow's sinks note in groups of their own how far they got; all are named after the topics.
        own = [group.group_id for group in groups if kafka.group_for("anomaly") in group.group_id]
        futures = [*admin.delete_topics(names, request_timeout=ANSWER_TIMEOUT_S).values()]
        futures += admin.delete_consumer_groups(own).values() if own else []
        for future in futures:
            with suppress(KafkaException):
                future.result(ANSWER_TIMEOUT_S)

"""The Kafka of a benchmark: an embedded one, or topics of our own on one that was given."""

from __future__ import annotations

import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from local.install import install
from local.kafka import EmbeddedKafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

PARTITIONS: Final = 4
GIVEN: Final = ("KAFKA_BOOTSTRAP_SERVERS", "TAILMARK_KAFKA__BOOTSTRAP_SERVERS")
"""Variables that name a Kafka to use in place of an embedded one."""

OUTPUTS: Final = ("windows", "alerts", "alerts_state", "dead_letter", "truth")

_ANSWER_TIMEOUT_S: Final = 30.0
_ANY_TIME: Final = {"message.timestamp.after.max.ms": str(2**63 - 1)}


@dataclass
class Cluster:
    """Where a benchmark happens; every topic that it makes is deleted with it.

    Attributes:
        servers: Where clients connect.
        directory: For what processes leave behind.
    """

    servers: str
    directory: Path
    _prefix: str = field(default_factory=lambda: f"tailmark-bench-{uuid.uuid4().hex[:8]}")
    _topics: list[str] = field(default_factory=list)
    _numbers: int = 0

    @property
    def client(self) -> dict[str, Any]:
        """Options of a Kafka client that keeps its log lines to itself."""
        return {"bootstrap.servers": self.servers, "client.id": "tailmark-bench", "log_level": 0}

    def name(self, what: str) -> str:
        """Give a name that nothing else has."""
        self._numbers += 1
        return f"{self._prefix}.{self._numbers:03d}-{what}"

    def create(self, what: str, **config: str) -> str:
        """Make a topic for events and return its name; keys of `config` have `_` for `.`."""
        topic = self.name(what)
        settings = _ANY_TIME | {key.replace("_", "."): value for key, value in config.items()}
        admin = AdminClient(self.client)
        made = admin.create_topics([NewTopic(topic, PARTITIONS, config=settings)], operation_timeout=_ANSWER_TIMEOUT_S)
        made[topic].result(_ANSWER_TIMEOUT_S)
        self._topics.append(topic)
        return topic

    def environment(self, events: str) -> dict[str, str]:
        """Give the settings of a flow or simulator on an input topic, with output topics of its own."""
        own = self.name("run")
        outputs = {name: f"{own}.{name.replace('_', '-')}" for name in OUTPUTS}
        self._topics += outputs.values()
        topics = {f"TAILMARK_KAFKA__TOPICS__{name.upper()}": topic for name, topic in outputs.items()}
        return topics | {
            "TAILMARK_KAFKA__BOOTSTRAP_SERVERS": self.servers,
            "TAILMARK_KAFKA__GROUP_ID": own,
            "TAILMARK_KAFKA__TOPICS__EVENTS": events,
        }

    def delete(self, topics: list[str]) -> None:
        """Delete topics, as far as the cluster lets us; the disk of a small machine is soon full."""
        self._topics = [topic for topic in self._topics if topic not in topics]
        admin = AdminClient(self.client)  # must outlive its answers
        with suppress(KafkaException, TimeoutError):
            for deleted in admin.delete_topics(topics, operation_timeout=_ANSWER_TIMEOUT_S).values():
                with suppress(KafkaException, TimeoutError):
                    deleted.result(_ANSWER_TIMEOUT_S)

    def delete_all(self) -> None:
        """Delete what is left of our topics."""
        if self._topics:
            self.delete(self._topics)


@contextmanager
def open_cluster(environ: Mapping[str, str], directory: Path, say: Callable[[str], None]) -> Iterator[Cluster]:
    """Give a Kafka for as long as the context lasts.

    Args:
        environ: `GIVEN` in it names a Kafka to use.
        directory: Empty; where an embedded Kafka keeps its records, and processes what they leave.
        say: Told what takes its time.

    Raises:
        EmbeddedKafkaError: The embedded Kafka can't be started.
        KafkaException: The given one can't be used.
    """
    given = next((environ[name] for name in GIVEN if environ.get(name)), None)
    if given is None:
        say("starting Apache Kafka")
        with EmbeddedKafka(directory / "kafka", runtime=install(say=say), heap_mib=1024) as kafka:
            yield Cluster(kafka.bootstrap_servers, directory)
        return
    cluster = Cluster(given, directory)
    try:
        yield cluster
    finally:
        cluster.delete_all()

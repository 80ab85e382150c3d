"""What Kafka still has of the windows of a service, and of its alerts."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from evaluation.window_table import table_of_records
from operators.kernels.series import shard_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import polars as pl

    from flows.settings import Settings
    from operators.kernels.frames import Transition

ANSWER_TIMEOUT_S: Final = 5.0
"""How long Kafka may take to answer, or to bring the next records."""

_BATCH: Final = 10_000
_QUIET: Final = {"log_level": 0}  # what goes wrong is said once, by us


class NothingToReadError(RuntimeError):
    """Kafka does not answer, or has no topic to read; one line that says so."""


@dataclass(frozen=True, slots=True)
class AlertFacts:
    """One transition of an alert, as it went to people.

    Attributes:
        status: `firing` or `resolved`.
        labels: `alertname`, `service`, `endpoint`, `severity`.
        annotations: What informs a person.
        starts_at_ms: When its episode opened.
        window_end_ms: End of the window that caused it.
        signal: What it is about.
        flapping: Whether it is held through quick repetitions.
    """

    status: str
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at_ms: int
    window_end_ms: int
    signal: str
    flapping: bool = False

    @classmethod
    def of(cls, transition: Transition) -> AlertFacts:
        """Take them from a transition that never went through Kafka."""
        return cls(**{field.name: getattr(transition, field.name) for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Recorded:
    """What Kafka has of one or more services that a name may mean.

    Attributes:
        windows: Windows of all their series, as `telemetry.windows` has them.
        alerts: Transitions of their alerts, in the order of their partitions.
        others: Keys of other series that were passed on the way, to suggest names from.
    """

    windows: pl.DataFrame
    alerts: list[AlertFacts]
    others: set[bytes] = field(default_factory=set)


def read(settings: Settings, services: Sequence[str], *, from_ms: int) -> Recorded:
    """Read the windows and alerts of services, committed ones only.

    All series of a service are in one partition, which its name tells; where that partition knows none of the services
    (partitions were added since, or the name is wrong), the others are read too.

    Args:
        settings: Where Kafka is, and the names of the topics.
        services: Names to look for.
        from_ms: Records that Kafka got earlier are left out.

    Raises:
        NothingToReadError: Kafka does not answer, or the flow has never written.
    """
    topics = settings.kafka.topics
    wanted = [f"{service}|".encode() for service in services]
    prefixes = tuple(wanted)
    try:
        partitions = _partitions(settings, topics.windows)
        likely = {shard_of(service, settings.window.shards) % len(partitions) for service in services}
        others: set[bytes] = set()
        values: list[bytes | None] = []
        for group in (sorted(likely), sorted(set(partitions) - likely)):
            if not values:
                for key, value in _records(settings, topics.windows, group, from_ms):
                    if key.startswith(prefixes):
                        values.append(value)
                    else:
                        others.add(key)
        alerts = _alerts(settings, set(services), from_ms)
    except KafkaException as error:
        raise NothingToReadError(
            f"kafka at {settings.kafka.bootstrap_servers} can't be read: {error.args[0].str()}"
        ) from error
    return Recorded(table_of_records(values), alerts, others)


def _partitions(settings: Settings, topic: str) -> list[int]:
    """List the partitions of a topic.

    Raises:
        NothingToReadError: There is no such topic.
    """
    known = AdminClient(settings.client(_QUIET)).list_topics(timeout=ANSWER_TIMEOUT_S).topics
    if topic not in known:
        raise NothingToReadError(
            f"topic {topic} does not exist, so there is nothing to explain: has flows.anomaly ever run here?"
        )
    return sorted(known[topic].partitions)


def _alerts(settings: Settings, services: set[str], from_ms: int) -> list[AlertFacts]:
    topic = settings.kafka.topics.alerts
    decoder = msgspec.json.Decoder(AlertFacts)
    try:
        partitions = _partitions(settings, topic)
    except NothingToReadError:
        return []
    found = [decoder.decode(value) for _, value in _records(settings, topic, partitions, from_ms) if value]
    return [alert for alert in found if alert.labels["service"] in services]


def _records(
    settings: Settings, topic: str, partitions: Iterable[int], from_ms: int
) -> Iterator[tuple[bytes, bytes | None]]:
    """Give keys and values of partitions from a time on to the ends that they have now."""
    places = [TopicPartition(topic, number, from_ms) for number in partitions]
    if not places:
        return
    with closing(Consumer(_reading(settings))) as consumer:
        found = consumer.offsets_for_times(places, timeout=ANSWER_TIMEOUT_S)
        left = {place.partition for place in found if place.offset >= 0}
        consumer.assign([place for place in found if place.offset >= 0])
        deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
        while left:
            messages = consumer.consume(_BATCH, 0.2)
            if time.monotonic() > deadline_s:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"the end of {topic} was not reached"))  # noqa: SLF001 - librdkafka's own code
            for message in messages:
                error = message.error()
                if error is None:
                    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
                    yield message.key() or b"", message.value()
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    left.discard(message.partition())
                elif not error.retriable():
                    raise KafkaException(error)


def _reading(settings: Settings) -> dict[str, Any]:
    """Give the options of a consumer that nobody is told of."""
    return settings.client(
        {
            **_QUIET,
            "group.id": "tailmark-explain",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 10,
        }
    )

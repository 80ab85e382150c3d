"""What Kafka says of the flows: their topics, how far their groups are behind, and the alerts that are open."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from cli.log_reader import LogReader, ours
from sources.clients import cluster_metadata, open_admin
from sources.errors import FlowError
from sources.groups import committed_offsets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from confluent_kafka.admin import AdminClient

    from flows.settings import Settings

ANSWER_TIMEOUT_S: Final = 10.0

# The client has types, but not for these.
_EARLIEST: Final[Any] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final[Any] = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_NEWEST: Final[Any] = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
_MS_PER_S: Final = 1000
_QUIET: Final = {"log_level": 0}  # what goes wrong is said once, by us


class KafkaUnreachableError(RuntimeError):
    """Kafka does not say how it is; one line that says why."""


class OpenAlert(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """The latest transition of an alert that fires, as the contract has it.

    Attributes:
        fingerprint: Its identity.
        status: `firing`; others are not open.
        labels: `alertname`, `service`, `endpoint`, `severity`.
        starts_at_ms: Event time at which it began.
        signal: What it is about.
        value: What was measured.
        expected: What was expected.
        score: How anomalous that is.
    """

    fingerprint: str
    status: str
    labels: dict[str, str]
    starts_at_ms: int
    signal: str
    value: float | None = None
    expected: float | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """One topic.

    Attributes:
        topic: Its name.
        partitions: How many it has; 0 when it does not exist.
        offsets: How many lie between its first and its last; transactions and compaction leave some of them empty.
        newest_s: Timestamp of its newest record, in seconds; None when it has none.
    """

    topic: str
    partitions: int
    offsets: int = 0
    newest_s: float | None = None


@dataclass(frozen=True, slots=True)
class KafkaFacts:
    """What Kafka knows.

    Attributes:
        topics: Those of the settings, in their order.
        lag_events: For each flow that has ever taken a snapshot: records after it.
        alerts: Open ones, oldest first.
    """

    topics: list[TopicFacts] = field(default_factory=list)
    lag_events: dict[str, int] = field(default_factory=dict)
    alerts: list[OpenAlert] = field(default_factory=list)


def read_kafka(settings: Settings, flows: Iterable[str]) -> KafkaFacts:
    """Ask Kafka.

    Args:
        settings: Where it is, and the names of the topics.
        flows: Names of flows.

    Raises:
        KafkaUnreachableError: It does not answer, or refuses to.
    """
    client = settings.client(_QUIET)
    admin, reasons = open_admin(client)
    topics = settings.kafka.topics
    names = [topics.events, topics.windows, topics.alerts, topics.alerts_state, topics.dead_letter]
    try:
        known = cluster_metadata(admin, reasons, client, timeout_s=ANSWER_TIMEOUT_S).topics
        partitions = {name: len(known[name].partitions) if name in known else 0 for name in names}
        places = [TopicPartition(name, number) for name, count in partitions.items() for number in range(count)]
        low = _offsets(admin, places, _EARLIEST)
        high = _offsets(admin, places, _LATEST)
        facts = [_topic(admin, name, count, low, high) for name, count in partitions.items()]
        lags = {flow: _lag(client, settings.kafka.group_for(flow), topics.events, high) for flow in flows}
        alerts = _open_alerts(settings) if partitions[topics.alerts_state] else []
    except KafkaException as error:
        raise KafkaUnreachableError(
            f"kafka at {settings.kafka.bootstrap_servers} does not answer: {error.args[0].str()}"
        ) from error
    except FlowError as error:
        raise KafkaUnreachableError(str(error)) from error
    return KafkaFacts(facts, {flow: lag for flow, lag in lags.items() if lag is not None}, alerts)


_Place = tuple[str, int]


def _offsets(admin: AdminClient, places: list[TopicPartition], spec: object) -> dict[_Place, int]:
    if not places:
        return {}
    asked = admin.list_offsets(
        dict.fromkeys(places, cast("Any", spec)),
        isolation_level=IsolationLevel.READ_COMMITTED,
        request_timeout=ANSWER_TIMEOUT_S,
    )
    return {(place.topic, place.partition): future.result().offset for place, future in asked.items()}


def _topic(
    admin: AdminClient, name: str, partitions: int, low: Mapping[_Place, int], high: Mapping[_Place, int]
) -> TopicFacts:
    places = [TopicPartition(name, number) for number in range(partitions)]
    offsets = sum(high[name, place.partition] - low[name, place.partition] for place in places)
    newest_ms = -1
    if offsets:
        asked = admin.list_offsets(dict.fromkeys(places, _NEWEST), request_timeout=ANSWER_TIMEOUT_S)
        newest_ms = max(future.result().timestamp for future in asked.values())
    return TopicFacts(name, partitions, offsets, newest_ms / _MS_PER_S if newest_ms >= 0 else None)


def _lag(client: Mapping[str, Any], group: str, topic: str, high: Mapping[_Place, int]) -> int | None:
    """Count the records after the snapshotted offsets of a flow; None when it never took a snapshot."""
    places = [TopicPartition(name, number) for name, number in high if name == topic]
    behind = [max(0, high[place] - offset) for place, offset in committed_offsets(client, group, places).items()]
    return sum(behind) if behind else None


def _open_alerts(settings: Settings) -> list[OpenAlert]:
    """Read the compacted topic."""
    latest: dict[bytes | None, bytes | None] = {}
    with closing(LogReader(settings.client(_QUIET), settings.kafka.topics.alerts_state)) as reader:
        for _, records in reader.read():
            latest.update((record.key(), record.value()) for record in records)
    alerts = (alert for alert in ours(latest.values(), OpenAlert) if alert.status == "firing")
    return sorted(alerts, key=lambda alert: (alert.starts_at_ms, alert.fingerprint))

"""What Kafka still has of the windows of a service, and of its alerts."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final

from cli.log_reader import LogReader, ours
from evaluation.window_table import table_of_records
from operators.kernels.series import shard_of
from sources.errors import FlowError, MissingTopicError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    import polars as pl

    from flows.settings import Settings
    from operators.kernels.frames import Transition

_QUIET: Final = {"log_level": 0}  # what goes wrong is said once, by us


class NothingToReadError(RuntimeError):
    """Kafka does not answer, or has no topic to read; one line that says so."""


@dataclass(frozen=True, slots=True)
class AlertFacts:
    """One transition of an alert, as it went to people.

    Attributes:
        fingerprint: Its identity, by which feedback names it.
        status: `firing` or `resolved`.
        labels: `alertname`, `service`, `endpoint`, `severity`.
        annotations: What informs a person.
        starts_at_ms: When its episode opened.
        window_end_ms: End of the window that caused it.
        signal: What it is about.
        flapping: Whether it is held through quick repetitions.
    """

    fingerprint: str
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
    try:
        values, others = _windows(settings, services, from_ms)
        alerts = _alerts(settings, set(services), from_ms)
    except MissingTopicError:
        raise NothingToReadError(
            f"topic {topics.windows} does not exist, so there is nothing to explain: has flows.anomaly ever run here?"
        ) from None
    except FlowError as error:
        raise NothingToReadError(str(error)) from error
    return Recorded(table_of_records(values), alerts, others)


def _windows(settings: Settings, services: Sequence[str], from_ms: int) -> tuple[list[bytes | None], set[bytes]]:
    """Give the records of the windows of services, and keys of other series that were passed on the way."""
    prefixes = tuple(f"{service}|".encode() for service in services)
    values: list[bytes | None] = []
    others: set[bytes] = set()
    with closing(LogReader(settings.client(_QUIET), settings.kafka.topics.windows)) as reader:
        partitions = set(reader.bounds)
        likely = {shard_of(service, settings.window.shards) % len(partitions) for service in services}
        for group in (likely, partitions - likely):
            if not values:
                for key, value in _records(reader, group, from_ms):
                    if key.startswith(prefixes):
                        values.append(value)
                    else:
                        others.add(key)
    return values, others


def _alerts(settings: Settings, services: set[str], from_ms: int) -> list[AlertFacts]:
    try:
        reader = LogReader(settings.client(_QUIET), settings.kafka.topics.alerts)
    except MissingTopicError:
        return []
    with closing(reader):
        found = list(ours((value for _, value in _records(reader, reader.bounds, from_ms)), AlertFacts))
    return [alert for alert in found if alert.labels.get("service") in services]


def _records(reader: LogReader, partitions: Container[int], from_ms: int) -> Iterator[tuple[bytes, bytes | None]]:
    """Give keys and values of partitions from a time on."""
    begins = reader.offsets_at(from_ms)
    starts = {number: begins[number] if number in partitions else end for number, (_, end) in reader.bounds.items()}
    for _, records in reader.read(starts):
        for record in records:
            yield record.key() or b"", record.value()

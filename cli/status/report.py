"""What was found, and what of it somebody should look at."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from cli.status.pages import page_url, read_pages
from cli.status.topics import KafkaFacts, KafkaUnreachableError, read_kafka

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.status.pages import ProcessFacts
    from flows.settings import Settings


@dataclass(frozen=True, slots=True)
class Report:
    """The state of everything.

    Attributes:
        processes: Those that answered.
        kafka: What Kafka said; empty when it did not answer.
        problems: What is wrong with the pipeline itself, a line each. An alert is not: that is what it is for.
    """

    processes: list[ProcessFacts]
    kafka: KafkaFacts
    problems: list[str] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        """Give plain data for JSON."""
        return {
            "ok": not self.problems,
            "problems": self.problems,
            "processes": [asdict(process) for process in self.processes],
            "lag_events": self.kafka.lag_events,
            "topics": [asdict(topic) for topic in self.kafka.topics],
            "alerts": [msgspec.to_builtins(alert) for alert in self.kafka.alerts],
        }


def gather(settings: Settings, flows: Sequence[str]) -> Report:
    """Ask everybody.

    Args:
        settings: Where everybody is.
        flows: Names of the flows that there may be.
    """
    processes = read_pages(settings.prometheus, flows)
    problems: list[str] = []
    kafka = KafkaFacts()
    try:
        kafka = read_kafka(settings, _owners(settings, flows, processes))
    except KafkaUnreachableError as error:
        problems.append(str(error))
    problems += _absent(settings, flows, processes, kafka)
    problems += [complaint for process in processes if (complaint := _complaint(process)) is not None]
    return Report(processes, kafka, problems)


def _owners(settings: Settings, flows: Sequence[str], processes: Sequence[ProcessFacts]) -> Sequence[str]:
    """Tell whose groups to ask for: a group that was given a name of its own belongs to the flow that runs with it."""
    if settings.kafka.group_id is None:
        return flows
    running = {process.flow for process in processes}
    return [flow for flow in flows if flow in running] or flows[:1]


def _absent(
    settings: Settings, flows: Sequence[str], processes: Sequence[ProcessFacts], kafka: KafkaFacts
) -> list[str]:
    """Tell which flows should run and don't, and which topic is missing that they read."""
    running = {process.flow for process in processes}
    known = set(kafka.lag_events) | ({flows[0]} if not running else set())
    found = [
        f"flow {flow} does not answer at {page_url(settings.prometheus, flow, 0)}"
        + (f"; {kafka.lag_events[flow]:,} records wait for it" if flow in kafka.lag_events else "")
        for flow in flows
        if flow in known - running
    ]
    events = settings.kafka.topics.events
    if any(topic.topic == events and not topic.partitions for topic in kafka.topics):
        found.append(f"topic {events} does not exist, so there is nothing to read")
    return found


def _complaint(process: ProcessFacts) -> str | None:
    """Say why a process is not ready; None when it is."""
    if process.ready:
        return None
    name = f"process {process.process} of flow {process.flow}"
    if process.epoch_age_s > process.epoch_limit_s:
        return f"{name} stands still: it has ended no epoch for {process.epoch_age_s:.0f} s"
    if not process.restored:
        return f"{name} is starting"
    if process.lag_s is None:
        return f"{name} has not read anything yet"
    return f"{name} is {process.lag_s:.0f} s behind"

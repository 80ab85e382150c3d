"""Which alerts are explained by which incidents, and what that says about both. Pure: times and names in, verdicts out.

An incident *explains* an alert that fired for one of its services, in one of its signals, after its beginning and not
later than a grace after its end. Nothing else is an explanation: an alert that no incident explains is false, and so is
one that only a harmless incident explains.

An alert that was open before an incident began and stays open to its end *holds* it: nobody is told twice, so nobody
can be told sooner. Such an incident is neither found nor missed, and is counted apart.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Incident:
    """What really happened.

    Attributes:
        name: Tells it from all others.
        kind: Such as `latency-step`.
        start_ms: Event time at which it begins, inclusive.
        end_ms: Event time at which it ends, exclusive.
        services: The services in which it shows.
        signals: The signals in which it shows.
        page: Whether a person should be woken.
        endpoints: The endpoints in which it shows; empty: all of its services.
        description: What happens, in a sentence.
    """

    name: str
    kind: str
    start_ms: int
    end_ms: int
    services: tuple[str, ...]
    signals: tuple[str, ...]
    page: bool
    endpoints: tuple[str, ...] = ()
    description: str = ""


class Firing(Protocol):
    """A transition with which an alert fires, as the alerts topic has it."""

    @property
    def labels(self) -> Mapping[str, str]:
        """What identifies the alert."""

    @property
    def signal(self) -> str:
        """What it is about."""

    @property
    def window_end_ms(self) -> int:
        """End of the window that caused it."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One episode that was told to somebody.

    Attributes:
        alertname: Such as `LatencyAnomaly`.
        service: Service.
        endpoint: Endpoint; empty: the whole service.
        signal: The signal it is about.
        severity: Such as `critical`.
        fired_ms: End of the window that made it fire, event time.
        resolved_ms: End of the window that resolved it; None while it is open.
    """

    alertname: str
    service: str
    endpoint: str
    signal: str
    severity: str
    fired_ms: int
    resolved_ms: int | None = None

    @classmethod
    def of(cls, firing: Firing, resolved_ms: int | None = None) -> Alert:
        """Make one of the transition with which it fired."""
        labels = firing.labels
        return cls(
            alertname=labels["alertname"],
            service=labels["service"],
            endpoint=labels["endpoint"],
            signal=firing.signal,
            severity=labels["severity"],
            fired_ms=firing.window_end_ms,
            resolved_ms=resolved_ms,
        )


class Verdict(Enum):
    """What can be said of an incident.

    Of one that should wake somebody: `FOUND`, `HELD` by an alert that was open before, `MISSED`, or `OPEN` while an
    alert may still come. Of a harmless one: `PAGED` when it raised an alert, else `OPEN` while it still may, and
    `QUIET` at last.
    """

    FOUND = "found"
    HELD = "held"
    MISSED = "missed"
    OPEN = "open"
    QUIET = "quiet"
    PAGED = "paged"


@dataclass(frozen=True, slots=True)
class Outcome:
    """An incident and what came of it.

    Attributes:
        incident: The incident.
        verdict: What can be said of it now.
        alerts: The alerts that it explains, those that hold it when there are none, or, if it is harmless, those that
            nothing else explains; by time.
    """

    incident: Incident
    verdict: Verdict
    alerts: tuple[Alert, ...]

    @property
    def after_ms(self) -> int | None:
        """Event time from its beginning to the end of the window of the first alert that it explains, if any."""
        if not self.alerts or self.verdict is Verdict.HELD:
            return None
        return self.alerts[0].fired_ms - self.incident.start_ms


@dataclass(frozen=True, slots=True)
class Judgement:
    """Every incident and every alert, judged.

    Attributes:
        outcomes: One for each incident, by their beginning.
        false_alerts: Alerts that nothing explains, or only something harmless; by time.
        causes: The page-worthy incident that explains an alert, the latest to begin where there are several.
    """

    outcomes: tuple[Outcome, ...]
    false_alerts: tuple[Alert, ...]
    causes: dict[Alert, Incident]

    def count(self, verdict: Verdict, *, page: bool = True) -> int:
        """Count the incidents with a verdict, among the page-worthy or among the harmless ones."""
        return sum(outcome.verdict is verdict and outcome.incident.page is page for outcome in self.outcomes)

    @property
    def paging(self) -> int:
        """Number of incidents so far that should wake somebody."""
        return sum(outcome.incident.page for outcome in self.outcomes)


def grace_after(*, length_ms: int, slide_ms: int) -> int:
    """Give the time after an incident's end in which an alert is still about it, milliseconds.

    A window that ends a length later still holds the last requests of the incident, and the policy that opens an
    episode waits for evidence in up to two further windows.
    """
    return length_ms + 2 * slide_ms


def explains(incident: Incident, alert: Alert, *, grace_ms: int) -> bool:
    """Tell whether an incident is the reason for an alert.

    Args:
        incident: What really happened.
        alert: What was said.
        grace_ms: As `grace_after` gives it.
    """
    return incident.start_ms < alert.fired_ms <= incident.end_ms + grace_ms and _is_about(alert, incident)


def holds(alert: Alert, incident: Incident) -> bool:
    """Tell whether an alert was open before an incident and stayed open to its end, or is open yet."""
    open_to_the_end = alert.resolved_ms is None or alert.resolved_ms > incident.end_ms
    return alert.fired_ms <= incident.start_ms and open_to_the_end and _is_about(alert, incident)


def _is_about(alert: Alert, incident: Incident) -> bool:
    return (
        alert.service in incident.services
        and alert.signal in incident.signals
        and (not incident.endpoints or not alert.endpoint or alert.endpoint in incident.endpoints)
    )


def judge(incidents: Iterable[Incident], alerts: Iterable[Alert], *, now_ms: int, grace_ms: int) -> Judgement:
    """Judge all incidents that have begun and all alerts that have fired.

    Args:
        incidents: In any order; those that begin at or after `now_ms` are left out.
        alerts: In any order.
        now_ms: Event time up to which alerts are complete: what came to nothing by now was missed.
        grace_ms: As `grace_after` gives it.

    Returns:
        The verdicts.
    """
    begun = sorted((found for found in incidents if found.start_ms < now_ms), key=_beginning)
    ordered = sorted(alerts, key=lambda alert: (alert.fired_ms, alert.service, alert.endpoint, alert.alertname))
    times = [alert.fired_ms for alert in ordered]

    def within(incident: Incident) -> Sequence[Alert]:
        return ordered[bisect_right(times, incident.start_ms) : bisect_right(times, incident.end_ms + grace_ms)]

    explained = {
        incident: tuple(alert for alert in within(incident) if explains(incident, alert, grace_ms=grace_ms))
        for incident in begun
        if incident.page
    }
    causes = {alert: incident for incident, own in explained.items() for alert in own}
    for incident in begun:
        if not incident.page:
            # Whatever it seems to be about: an alert that came with the surge and with nothing else is the surge's.
            explained[incident] = tuple(
                alert for alert in within(incident) if alert not in causes and alert.service in incident.services
            )
    return Judgement(
        outcomes=tuple(
            _outcome(incident, explained[incident], ordered, now_ms=now_ms, grace_ms=grace_ms) for incident in begun
        ),
        false_alerts=tuple(alert for alert in ordered if alert not in causes),
        causes=causes,
    )


def _beginning(incident: Incident) -> tuple[int, str]:
    return incident.start_ms, incident.name


def _outcome(
    incident: Incident, own: tuple[Alert, ...], alerts: Sequence[Alert], *, now_ms: int, grace_ms: int
) -> Outcome:
    if own:
        return Outcome(incident, Verdict.FOUND if incident.page else Verdict.PAGED, own)
    holding = tuple(alert for alert in alerts if holds(alert, incident)) if incident.page else ()
    if holding:
        return Outcome(incident, Verdict.HELD, holding)
    if now_ms < incident.end_ms + grace_ms:
        return Outcome(incident, Verdict.OPEN, ())
    return Outcome(incident, Verdict.MISSED if incident.page else Verdict.QUIET, ())

"""What is known about the pipeline from its topics and its page: what the live view draws and the summary tells."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import msgspec

from local.demo.matching import Alert, Incident, Judgement, judge

HISTORY_WINDOWS: Final = 120
"""Windows of each series that are remembered for its sparkline."""


class WindowRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of `telemetry.windows`, as far as it is shown; the fields are the contract's."""

    service: str
    endpoint: str
    window_end_ms: int
    count: int
    error_ratio: float | None
    rate_per_s: float
    p99_ms: float | None
    state: Literal["warming", "normal", "anomalous"]
    latency_score: float | None = None
    latency_expected: float | None = None
    latency_upper: float | None = None
    errors_score: float | None = None
    traffic_score: float | None = None
    traffic_expected: float | None = None


class AlertRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of `telemetry.alerts`, as far as it is shown; the fields are the contract's."""

    fingerprint: str
    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    starts_at_ms: int
    window_end_ms: int
    signal: str


class TruthRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of `telemetry.truth`; the fields are the simulator's."""

    scenario_id: str
    kind: str
    start_ms: int
    end_ms: int
    services: tuple[str, ...]
    endpoints: tuple[str, ...]
    signals: tuple[str, ...]
    page: bool
    description: str


@dataclass(slots=True)
class Series:
    """The last windows of one service and endpoint.

    Attributes:
        latest: The last one.
        p99_ms: P99 of the last `HISTORY_WINDOWS`, None where there was no request.
        slow: Whether each of them was anomalously slow.
    """

    latest: WindowRecord
    p99_ms: deque[float | None] = field(default_factory=lambda: deque(maxlen=HISTORY_WINDOWS))
    slow: deque[bool] = field(default_factory=lambda: deque(maxlen=HISTORY_WINDOWS))

    def add(self, window: WindowRecord) -> None:
        """Take the next window."""
        self.latest = window
        self.p99_ms.append(window.p99_ms)
        self.slow.append((window.latency_score or 0.0) >= 1.0)


@dataclass(frozen=True, slots=True)
class Vitals:
    """How the pipeline does; None for what is not known (yet).

    Attributes:
        sent: Records in the events topic.
        sent_per_s: How many came in a second of wall time.
        accepted: Events that went into windows.
        late: Events that came too late for that.
        dead_letters: Records that were no events.
        lag_events: Records that the flow has not read yet.
    """

    sent: int = 0
    sent_per_s: float = 0.0
    accepted: int | None = None
    late: int | None = None
    dead_letters: int | None = None
    lag_events: int | None = None


class Board:
    """Everything that was seen so far.

    Args:
        length_ms: Length of a window.
        slide_ms: From one window end to the next.
        grace_ms: How long after an incident its alerts may come.
        warm_windows: Windows that a series needs before it can be judged.

    Attributes:
        series: By service and endpoint.
        windows: Number of windows that were closed.
        dead_letters: Number of dead letters.
        window_end_ms: End of the last window; 0 before the first.
        vitals: How the pipeline does.
    """

    def __init__(self, *, length_ms: int, slide_ms: int, grace_ms: int, warm_windows: int) -> None:
        self.length_ms = length_ms
        self.slide_ms = slide_ms
        self.warm_windows = warm_windows
        self.series: dict[tuple[str, str], Series] = {}
        self.windows = 0
        self.dead_letters = 0
        self.window_end_ms = 0
        self.vitals = Vitals()
        self._grace_ms = grace_ms
        self._first_end_ms = 0
        self._alerts: dict[tuple[str, int], Alert] = {}
        self._incidents: dict[str, Incident] = {}
        self._judged: Judgement | None = None

    @property
    def slides(self) -> int:
        """How many windows each of the oldest series has had."""
        return 0 if not self.windows else (self.window_end_ms - self._first_end_ms) // self.slide_ms + 1

    @property
    def span_ms(self) -> int:
        """Event time that the windows span so far."""
        return self.slides * self.slide_ms

    def take_window(self, window: WindowRecord) -> None:
        """Take a closed window."""
        self.windows += 1
        key = (window.service, window.endpoint)
        self.series.setdefault(key, Series(window)).add(window)
        if window.window_end_ms > self.window_end_ms:
            self._first_end_ms = self._first_end_ms or window.window_end_ms
            self.window_end_ms = window.window_end_ms
            self._judged = None

    def take_alert(self, record: AlertRecord) -> None:
        """Take an alert transition."""
        key = (record.fingerprint, record.starts_at_ms)
        if record.status == "firing":
            self._alerts[key] = Alert.of(record)
        elif key in self._alerts:
            self._alerts[key] = replace(self._alerts[key], resolved_ms=record.window_end_ms)
        self._judged = None

    def take_truth(self, record: TruthRecord) -> None:
        """Take an incident that begins."""
        self._judged = None
        self._incidents[record.scenario_id] = Incident(
            name=record.scenario_id,
            kind=record.kind,
            start_ms=record.start_ms,
            end_ms=record.end_ms,
            services=record.services,
            signals=record.signals,
            page=record.page,
            endpoints=record.endpoints,
            description=record.description,
        )

    @property
    def alerts(self) -> list[Alert]:
        """Every alert that was told."""
        return [*self._alerts.values()]

    @property
    def open_alerts(self) -> list[Alert]:
        """The alerts that are open, the latest first."""
        opened = [alert for alert in self._alerts.values() if alert.resolved_ms is None]
        return sorted(opened, key=lambda alert: -alert.fired_ms)

    def running(self, incident: Incident) -> bool:
        """Tell whether an incident goes on, as far as windows tell."""
        return incident.start_ms < self.window_end_ms < incident.end_ms

    def judgement(self) -> Judgement:
        """Judge incidents and alerts as far as windows have closed."""
        if self._judged is None:
            self._judged = judge(
                self._incidents.values(), self.alerts, now_ms=self.window_end_ms, grace_ms=self._grace_ms
            )
        return self._judged

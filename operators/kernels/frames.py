"""The frames that flow between operators: arrays over the series of one shard, never one event or one window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIGNALS: Final = ("latency", "errors", "traffic")
"""What is scored, in the row order of every array of shape (signals, series)."""

WARMING: Final = 0
NORMAL: Final = 1
ANOMALOUS: Final = 2
STATES: Final = ("warming", "normal", "anomalous")
"""Names of the verdicts on a series, indexed by the codes `WARMING`, `NORMAL` and `ANOMALOUS`."""


@dataclass(frozen=True, slots=True)
class WindowFrame:
    """The closed windows of all live series of one shard at one window end.

    Attributes:
        window_start_ms: Event time at which the windows open, inclusive.
        window_end_ms: Event time at which the windows close, exclusive.
        service: Service of each series, length n. Row order is the shard's slot order, stable while `carry` is None.
        endpoint: Endpoint of each series, length n.
        count: Shape (n,), int64: requests; 0 for a series that was silent.
        errors: Shape (n,), int64: requests with a status of 500 or more.
        sum_us: Shape (n,), int64: sum of the latencies in whole microseconds.
        max_us: Shape (n,), int64: largest latency in microseconds; 0 where `count` is 0.
        p50_us: Shape (n,), float64: median latency in microseconds; NaN where `count` is 0.
        p90_us: Shape (n,), float64: 90th percentile, likewise.
        p99_us: Shape (n,), float64: 99th percentile, likewise.
        carry: Shape (n,), int64: the row that each series had in this shard's previous frame, -1 for a new series.
            None when the rows are those of the previous frame.
        cut_short: Whether event time did not get to the end of the window, because the job ended or all its input fell
            idle: what is missing in it may have happened and not been read.
    """

    window_start_ms: int
    window_end_ms: int
    service: list[str]
    endpoint: list[str]
    count: NDArray[np.int64]
    errors: NDArray[np.int64]
    sum_us: NDArray[np.int64]
    max_us: NDArray[np.int64]
    p50_us: NDArray[np.float64]
    p90_us: NDArray[np.float64]
    p99_us: NDArray[np.float64]
    carry: NDArray[np.int64] | None
    cut_short: bool = False


@dataclass(frozen=True, slots=True)
class ScoredFrame:
    """A `WindowFrame` with the verdict of the detectors on it.

    Latency bands are milliseconds of P99, error bands a ratio in [0, 1], traffic bands requests per second. NaN stands
    for a number that is not known, and leaves as `null`.

    Attributes:
        windows: The scored windows, n rows.
        score: Shape (signals, n): 1.0 or more is anomalous; 0 while warming.
        expected: Shape (signals, n): the value the detector expected.
        lower: Shape (signals, n): below this value the score would reach 1; NaN where low values are never anomalous.
        upper: Shape (signals, n): above this value the score would reach 1; NaN where high values are never anomalous.
        state: Shape (n,), int8: `WARMING`, `NORMAL` or `ANOMALOUS`.
        by_rule: Shape (signals, n), bool: anomalies that another detector than the default one finds, whose scores are
            no probabilities; None where there is no other.
    """

    windows: WindowFrame
    score: NDArray[np.float64]
    expected: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    state: NDArray[np.int8]
    by_rule: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of an alert episode: it fires or it is resolved.

    The fields are those of the record on `telemetry.alerts`, in its units; `labels` and `annotations` are complete.

    Attributes:
        fingerprint: 16 hex digits, a stable hash of `labels`.
        status: `firing` or `resolved`.
        labels: What identifies the alert: alertname, service, endpoint, severity.
        annotations: What informs a person: summary, description, runbook_url, dashboard_url.
        starts_at_ms: Event time at which the episode opened; the same in both records of an episode.
        ends_at_ms: Event time at which it was resolved, None while firing.
        window_end_ms: End of the window that caused this transition.
        signal: One of `SIGNALS`.
        value: What was measured in that window; None when unknown.
        expected: What was expected; None when unknown.
        score: The score at the transition.
        flapping: Whether the episode was held open through quick repetitions.
    """

    fingerprint: str
    status: str
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at_ms: int
    ends_at_ms: int | None
    window_end_ms: int
    signal: str
    value: float | None
    expected: float | None
    score: float
    flapping: bool

"""What the bridge hands on: the counters and histograms of one shard at the end of a pane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Exemplar:
    """The slowest traced request that a series had in a pane.

    Attributes:
        row: The series, a row of the frame.
        latency_us: Its latency in whole microseconds.
        timestamp_ms: Its event time.
        trace_id: Its trace id.
    """

    row: int
    latency_us: int
    timestamp_ms: int
    trace_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A series that was silent for too long, and is forgotten.

    Attributes:
        service: Its service.
        endpoint: Its endpoint.
        statuses: The status codes that it had counters for.
    """

    service: str
    endpoint: str
    statuses: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TallyFrame:
    """Everything counted since each series of a shard began, when a pane has closed.

    Attributes:
        pane_start_ms: Event time at which the pane begins.
        pane_end_ms: Event time at which it ends: the time of all values here.
        service: Service of each series, length n.
        endpoint: Endpoint of each series, length n.
        started_ms: Shape (n,), int64: start of the first pane of each series, since when it is counted.
        count: Shape (n,), int64: requests.
        sum_s: Shape (n,), float64: sum of latencies in seconds.
        schema: Shape (n,), int64: resolution of the buckets, that of Prometheus's native histograms: 6 or less.
        bucket_row: Shape (b,), int64, ascending: the series of each bucket that is not empty.
        bucket_code: Shape (b,), int64, ascending for each series: 0 for the zero bucket, else its index + `OFFSET`.
        bucket_count: Shape (b,), int64: requests in it.
        code_row: Shape (c,), int64, ascending: the series of each counter.
        code_status: Shape (c,), int64: its status code.
        code_count: Shape (c,), int64: requests with it.
        code_started_ms: Shape (c,), int64: start of the first pane in which the series had this status code.
        exemplars: Of the series that had traced requests in this pane.
        ended: Series that ended with this pane; they are not among the rows.
        again: Whether it was told before: a page that has just begun shows it, and nobody else needs it.
    """

    pane_start_ms: int
    pane_end_ms: int
    service: list[str]
    endpoint: list[str]
    started_ms: NDArray[np.int64]
    count: NDArray[np.int64]
    sum_s: NDArray[np.float64]
    schema: NDArray[np.int64]
    bucket_row: NDArray[np.int64]
    bucket_code: NDArray[np.int64]
    bucket_count: NDArray[np.int64]
    code_row: NDArray[np.int64]
    code_status: NDArray[np.int64]
    code_count: NDArray[np.int64]
    code_started_ms: NDArray[np.int64]
    exemplars: tuple[Exemplar, ...]
    ended: tuple[Ended, ...]
    again: bool = False

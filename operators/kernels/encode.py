"""Closed windows and alert transitions as the bytes that CONTRACT.md fixes."""

from __future__ import annotations

from itertools import starmap
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from operators.kernels.frames import SIGNALS, STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from operators.kernels.frames import ScoredFrame, Transition, WindowFrame

CHUNK_ROWS: Final = 256
"""Rows encoded at a time, so that their Python objects stay in the cache: 10,000 at once cost twice as much a row."""

_QUANTILE_SLACK: Final = 1.02
"""By what a quantile may be below the value that it stands for, and a little more."""

_SUM_LIMIT_US: Final = 2.0**63
_JSON: Final = msgspec.json.Encoder()


class WireRecords(NamedTuple):
    """Records for one topic, three lists of the same length.

    Attributes:
        keys: Keys of the records.
        values: Values; None is a tombstone.
        ids: What makes a record the same one when it is written again.
    """

    keys: list[bytes | None]
    values: list[bytes | None]
    ids: list[bytes]


class WindowRecord(msgspec.Struct, gc=False):
    """One record of `telemetry.windows`, its fields in their order on the wire; NaN leaves as null."""

    schema: str
    service: str
    endpoint: str
    window_start_ms: int
    window_end_ms: int
    count: int
    errors: int
    error_ratio: float
    rate_per_s: float
    mean_ms: float
    max_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    latency_score: float
    latency_expected: float
    latency_lower: float
    latency_upper: float
    errors_score: float
    errors_expected: float
    errors_lower: float
    errors_upper: float
    traffic_score: float
    traffic_expected: float
    traffic_lower: float
    traffic_upper: float
    state: str


class AlertRecord(msgspec.Struct, gc=False):
    """One record of `telemetry.alerts`, its fields in their order on the wire; NaN leaves as null."""

    schema: str
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


def window_records(frames: Sequence[ScoredFrame]) -> WireRecords:
    """Encode closed, scored windows.

    Args:
        frames: Scored frames of one shard, or of several.

    Returns:
        One record a row, in the order of the frames and of their rows. The id is unique to (service, endpoint,
        window_end_ms): it ends with the length of the service, because any character may be part of a name.
    """
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    ids: list[bytes] = []
    for frame in frames:
        windows = frame.windows
        if not windows.service:
            continue
        named = [
            f"{service}|{endpoint}".encode()
            for service, endpoint in zip(windows.service, windows.endpoint, strict=True)
        ]
        lengths = list(map(len, windows.service))
        suffixes = {length: f"|{windows.window_end_ms}|{length}".encode() for length in set(lengths)}
        keys += named
        ids += [key + suffixes[length] for key, length in zip(named, lengths, strict=True)]
        values += _window_values(frame)
    return WireRecords(keys, values, ids)


def alert_records(transitions: Iterable[Transition]) -> WireRecords:
    """Encode alert transitions for the topic that keeps them all.

    Args:
        transitions: Transitions in the order in which they are to be written.

    Returns:
        One record a transition; its key is the fingerprint, its id fingerprint, start and status.
    """
    told = list(transitions)
    keys: list[bytes | None] = [transition.fingerprint.encode() for transition in told]
    values: list[bytes | None] = [_JSON.encode(_alert(transition)) for transition in told]
    return WireRecords(keys, values, [_alert_id(transition) for transition in told])


def alert_state_records(transitions: Iterable[Transition]) -> WireRecords:
    """Encode alert transitions for the compacted topic that keeps what is open.

    Args:
        transitions: Transitions in the order in which they are to be written.

    Returns:
        As `alert_records`, but a tombstone for each transition that resolves.
    """
    told = list(transitions)
    records = alert_records(told)
    values = [
        value if transition.status == "firing" else None for value, transition in zip(records.values, told, strict=True)
    ]
    return records._replace(values=values)


def _window_values(frame: ScoredFrame) -> list[bytes]:
    windows = frame.windows
    rows = len(windows.service)
    measured = _measured(windows)
    bands = np.stack([frame.score, frame.expected, frame.lower, frame.upper], axis=1).reshape(4 * len(SIGNALS), rows)
    values: list[bytes] = []
    constant = ("window/1",), (windows.window_start_ms,), (windows.window_end_ms,)
    for start in range(0, rows, CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        service = windows.service[part]
        schema, start_ms, end_ms = (column * len(service) for column in constant)
        columns = (
            schema,
            service,
            windows.endpoint[part],
            start_ms,
            end_ms,
            windows.count[part].tolist(),
            windows.errors[part].tolist(),
            *measured[:, part].tolist(),
            *bands[:, part].tolist(),
            [STATES[code] for code in frame.state[part].tolist()],
        )
        values += map(_JSON.encode, starmap(WindowRecord, zip(*columns, strict=True)))
    return values


def _measured(windows: WindowFrame) -> NDArray[np.float64]:
    """Derive the numbers between `errors` and `p99_ms` on the wire, shape (7, n); NaN where there was no request."""
    count = np.where(windows.count > 0, windows.count, np.nan)
    length_s = (windows.window_end_ms - windows.window_start_ms) / 1_000
    measured = np.empty((7, len(count)))
    measured[0] = windows.errors / count
    measured[1] = windows.count / length_s
    measured[2] = _sums_us(windows) / count / 1_000
    measured[3] = np.where(windows.count > 0, windows.max_us, np.nan) / 1_000
    measured[4] = windows.p50_us / 1_000
    measured[5] = windows.p90_us / 1_000
    measured[6] = windows.p99_us / 1_000
    return measured


def _sums_us(windows: WindowFrame) -> NDArray[np.float64]:
    """Give the sums of latencies; NaN where so many are so long that 64 bits may not have held the sum."""
    longest = 0.5 * windows.p50_us + 0.4 * windows.p90_us + 0.09 * windows.p99_us + 0.01 * windows.max_us
    return np.where(_QUANTILE_SLACK * windows.count * longest >= _SUM_LIMIT_US, np.nan, windows.sum_us)


def _alert(transition: Transition) -> AlertRecord:
    return AlertRecord(
        schema="alert/1",
        fingerprint=transition.fingerprint,
        status=transition.status,
        labels=transition.labels,
        annotations=transition.annotations,
        starts_at_ms=transition.starts_at_ms,
        ends_at_ms=transition.ends_at_ms,
        window_end_ms=transition.window_end_ms,
        signal=transition.signal,
        value=transition.value,
        expected=transition.expected,
        score=transition.score,
        flapping=transition.flapping,
    )


def _alert_id(transition: Transition) -> bytes:
    return f"{transition.fingerprint}|{transition.starts_at_ms}|{transition.status}".encode()

"""What goes wrong between a service and Kafka: disorder, lateness, duplicates, wrong clocks, malformed records."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from simulator.requests import Requests, concat

if TYPE_CHECKING:
    from collections.abc import Callable

_LATE_SPREAD: Final = 4
_DUPLICATE_DELAY_MS: Final = 2000
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbances:
    """How much of the stream is disturbed. Ratios are shares of the events, in [0, 1].

    Attributes:
        disorder_ratio: Events that arrive up to `disorder_ms` after their time; the others arrive at once.
        disorder_ms: Longest delay of those; within the allowed lateness they are out of order, not late.
        late_ratio: Events that arrive after at least `late_ms`, up to four times as long.
        late_ms: Shortest delay of a late event; past lateness and slide together every one of them is late.
        duplicate_ratio: Events sent a second time within two seconds, byte for byte.
        malformed_ratio: Malformed events sent beside the good ones, for each good one.
        skew_ratio: Events stamped by a clock that is up to `skew_ms` wrong, either way.
        skew_ms: Largest error of a clock.
    """

    disorder_ratio: float = 0.05
    disorder_ms: int = 2000
    late_ratio: float = 0.0005
    late_ms: int = 15_000
    duplicate_ratio: float = 0.0005
    malformed_ratio: float = 0.0005
    skew_ratio: float = 0.002
    skew_ms: int = 1000

    def __post_init__(self) -> None:
        """Refuse shares and times that cannot be.

        Raises:
            ValueError: A ratio is outside [0, 1], or a time is negative.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_ratio") and not 0 <= value <= 1:
                message = f"`{field.name}` must be in [0, 1], being a share of the events; got {value:g}"
                raise ValueError(message)
            if value < 0:
                message = f"`{field.name}` must not be negative, or events would arrive before they happen; got {value}"
                raise ValueError(message)


NONE: Final = Disturbances(disorder_ratio=0, late_ratio=0, duplicate_ratio=0, malformed_ratio=0, skew_ratio=0)
"""A stream without any disturbance."""


def disturb(requests: Requests, how: Disturbances, rng: np.random.Generator) -> Requests:
    """Delay, repeat, mis-stamp and break some of the requests.

    The good events stay what they are: malformed ones and duplicates come on top of them.

    Args:
        requests: Undisturbed requests by timestamp.
        how: The shares.
        rng: The only source of randomness.

    Returns:
        The requests, then the duplicates, then the malformed ones: not in order of arrival.
    """
    size = len(requests)
    arrival_ms = requests.arrival_ms.copy()
    chance = rng.random(size)
    disordered = np.flatnonzero(chance < how.disorder_ratio)
    arrival_ms[disordered] += rng.integers(0, how.disorder_ms + 1, len(disordered))
    # The other end of the same uniform number: an event is never both, whatever the shares below one half.
    late = np.flatnonzero(chance >= 1 - how.late_ratio)
    arrival_ms[late] += rng.integers(how.late_ms, how.late_ms * _LATE_SPREAD + 1, len(late))
    timestamp_ms = requests.timestamp_ms.copy()
    skewed = np.flatnonzero(rng.random(size) < how.skew_ratio) if how.skew_ratio else np.empty(0, dtype=np.intp)
    timestamp_ms[skewed] += rng.integers(-how.skew_ms, how.skew_ms + 1, len(skewed))
    held = np.zeros(size, dtype=np.bool_)
    held[late] = True
    good = replace(requests, timestamp_ms=timestamp_ms, arrival_ms=arrival_ms, late=held)
    return concat([good, _duplicates(good, how, rng), _malformed(good, how, rng)])


def _duplicates(good: Requests, how: Disturbances, rng: np.random.Generator) -> Requests:
    rows = _some(len(good), how.duplicate_ratio, rng)
    copies = good.take(rows)
    delay_ms = rng.integers(0, _DUPLICATE_DELAY_MS + 1, len(rows))
    return replace(copies, arrival_ms=copies.arrival_ms + delay_ms, copy=np.ones(len(rows), dtype=np.bool_))


def _malformed(good: Requests, how: Disturbances, rng: np.random.Generator) -> Requests:
    rows = _some(len(good), how.malformed_ratio, rng)
    fault = rng.integers(1, len(FAULTS) + 1, len(rows), dtype=np.int8)
    return replace(good.take(rows), fault=fault)


def _some(size: int, ratio: float, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Choose a share of the rows; the number is binomial, a row may be chosen twice."""
    count = int(rng.binomial(size, ratio)) if size and ratio else 0
    return np.sort(rng.integers(0, max(1, size), count))


def _field(name: bytes, value: bytes) -> Callable[[bytes], bytes]:
    """Make a fault that gives one field of the JSON text another value."""
    pattern = re.compile(rb'"' + name + rb'":("[^"]*"|[^,}]*)')

    def spoil(text: bytes) -> bytes:
        return pattern.sub(b'"' + name + b'":' + value, text, count=1)

    return spoil


def _without_service(text: bytes) -> bytes:
    return re.sub(rb'"service":"[^"]*",', b"", text, count=1)


def _seconds(text: bytes) -> bytes:
    return re.sub(rb'("timestamp_ms":\d+)\d{3}', rb"\1", text, count=1)


def _future(text: bytes) -> bytes:
    def later(found: re.Match[bytes]) -> bytes:
        return b'"timestamp_ms":%d' % (int(found[1]) + _HOUR_MS)

    return re.sub(rb'"timestamp_ms":(\d+)', later, text, count=1)


def _truncated(text: bytes) -> bytes:
    return text[: len(text) * 2 // 3]


def _not_json(_text: bytes) -> bytes:
    return b"GET /healthz HTTP/1.1"


def _not_utf8(text: bytes) -> bytes:
    return text.replace(b'"service":"', b'"service":"\xff\xfe', 1)


ITEM_FAULTS: Final = 8
"""The first so many of `FAULTS` leave valid JSON, and may stand inside an array without spoiling its neighbours."""

FAULTS: Final[tuple[Callable[[bytes], bytes], ...]] = (
    _without_service,
    _seconds,
    _future,
    _field(b"latency_ms", b"-1.5"),
    _field(b"latency_ms", b'"fast"'),
    _field(b"status", b"999"),
    _field(b"service", b'""'),
    _field(b"timestamp_ms", b"null"),
    _truncated,
    _not_json,
    _not_utf8,
)
"""What a malformed event looks like: each turns the text of a good event into one that must be rejected."""

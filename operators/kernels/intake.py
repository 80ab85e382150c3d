"""What the source does with the records of one partition: decode, validate, and judge lateness in log order.

Lateness is judged here, before partitions and workers interleave, so that it is a function of the log alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.decode import Flaw, Reject, split_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from operators.kernels.decode import Decoded, EventDecoder
    from operators.kernels.series import SeriesTable

NO_TIME_MS: Final = -(1 << 60)
"""Event time of a partition that has brought nothing yet."""

_US_PER_MS: Final = 1000.0
_FLAWS: Final = (
    Flaw("validate", "missing_field", "`service` is missing"),
    Flaw("validate", "missing_field", "`latency_ms` is missing"),
    Flaw(
        "validate",
        "timestamp_in_future",
        "`timestamp_ms` is further ahead of the record's Kafka timestamp than events.max_future_ms allows",
    ),
)


@dataclass(frozen=True, slots=True)
class IntakeRules:
    """The settings that decide what is accepted.

    Attributes:
        slide_ms: Length of a pane.
        allowed_lateness_ms: How far the watermark stays behind the highest event time.
        max_future_ms: How far an event may be ahead of its record's Kafka timestamp.
    """

    slide_ms: int
    allowed_lateness_ms: int
    max_future_ms: int

    def frontier(self, top_ms: int) -> int:
        """Give the first pane that is not complete when `top_ms` is the highest event time seen."""
        return (top_ms - self.allowed_lateness_ms) // self.slide_ms


@dataclass(frozen=True, slots=True)
class EventColumns:
    """Accepted events of one partition, in log order, n rows.

    Attributes:
        code: Shape (n,), int64: series codes of the table they were taken with.
        pane: Shape (n,), int64: index of the pane, `timestamp_ms // slide_ms`.
        latency_us: Shape (n,), int64: latency in whole microseconds.
        error: Shape (n,), bool: whether the status is 500 or more.
    """

    code: NDArray[np.int64]
    pane: NDArray[np.int64]
    latency_us: NDArray[np.int64]
    error: NDArray[np.bool_]

    def where(self, rows: NDArray[np.bool_] | slice) -> EventColumns:
        """Keep the rows that `rows` marks, shape (n,), or a run of them."""
        return EventColumns(self.code[rows], self.pane[rows], self.latency_us[rows], self.error[rows])


def joined(parts: Sequence[EventColumns]) -> EventColumns:
    """Put the events of consecutive batches of one partition one after the other; there is at least one batch."""
    if len(parts) == 1:
        return parts[0]
    return EventColumns(
        np.concatenate([part.code for part in parts]),
        np.concatenate([part.pane for part in parts]),
        np.concatenate([part.latency_us for part in parts]),
        np.concatenate([part.error for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class Intake:
    """What one batch of one partition brought.

    Attributes:
        columns: The accepted events.
        top_ms: Highest event time of the partition so far, the batch included.
        late: How many events came too late and were left out.
        heartbeats: How many heartbeats came.
        heartbeat_ms: Highest heartbeat in the batch, `NO_TIME_MS` without any.
        rejects: Records and items that are no events, in log order.
        decoded: All that was decoded, for those who want more of an event than the columns have.
        valid: Shape (decoded events,), bool: which of them keep the rules.
        kept: Shape (valid events,), bool: which of those are in `columns`, in the same order.
        heartbeat: Shape (valid events,), bool: which of those are heartbeats.
    """

    columns: EventColumns
    top_ms: int
    late: int
    heartbeats: int
    heartbeat_ms: int
    rejects: list[Reject]
    decoded: Decoded
    valid: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    heartbeat: NDArray[np.bool_]

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """Which of the decoded events are in `columns`; shape (decoded events,)."""
        return self._of_all(self.kept)

    @property
    def tardy(self) -> NDArray[np.bool_]:
        """Which of the decoded events were late; shape (decoded events,)."""
        return self._of_all(~(self.kept | self.heartbeat))

    def _of_all(self, among_valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Turn a mask over the valid events into one over all of them."""
        mask = np.zeros(len(self.valid), np.bool_)
        mask[self.valid] = among_valid
        return mask


def take(
    values: Sequence[bytes | None],
    kafka_ms: Sequence[int],
    top_ms: int,
    *,
    rules: IntakeRules,
    table: SeriesTable,
    decoder: EventDecoder,
) -> Intake:
    """Take in one batch of records of one partition.

    Args:
        values: Record values in log order.
        kafka_ms: Timestamp of each record; negative where the broker has none, which switches the check off.
        top_ms: Highest event time of the partition before the batch.
        rules: What is accepted.
        table: Codes of the series; new ones are added.
        decoder: Turns values into events.

    Returns:
        The accepted events, the new highest event time and what was left out. Any split of the same records into
        batches gives the same result, piece by piece.
    """
    decoded = decoder.decode(values)
    events = decoded.events
    n = len(events)
    timestamp_ms = np.fromiter([event.timestamp_ms for event in events], np.int64, n)
    latency_ms = np.fromiter([event.latency_ms for event in events], np.float64, n)
    error = np.frombuffer(bytes([event.status >= 500 for event in events]), np.bool_)  # noqa: PLR2004 - HTTP's own number
    heartbeat = np.frombuffer(bytes([event.heartbeat for event in events]), np.bool_)
    code = table.codes(events)
    rejects = decoded.rejects
    unnamed = table.places().shard[code] < 0
    valid = (timestamp_ms <= _horizon_ms(kafka_ms, rules, decoded)) & (heartbeat | ((latency_ms >= 0) & ~unnamed))
    if not valid.all():
        rejects = sorted(rejects + _invalid(values, decoded, valid, unnamed, latency_ms, heartbeat))
        timestamp_ms, latency_ms, code = timestamp_ms[valid], latency_ms[valid], code[valid]
        error, heartbeat = error[valid], heartbeat[valid]
    seen_before_ms = np.maximum.accumulate(np.concatenate([[top_ms], timestamp_ms]))
    pane = timestamp_ms // rules.slide_ms
    late = (pane + 1) * rules.slide_ms <= seen_before_ms[:-1] - rules.allowed_lateness_ms
    kept = ~(late | heartbeat)
    latency_us = np.rint(latency_ms * _US_PER_MS).astype(np.int64)
    columns = EventColumns(code, pane, latency_us, error)
    if not kept.all():
        columns = columns.where(kept)
    heartbeats = int(np.count_nonzero(heartbeat))
    return Intake(
        columns=columns,
        top_ms=int(seen_before_ms[-1]),
        late=len(pane) - len(columns.pane) - heartbeats,
        heartbeats=heartbeats,
        heartbeat_ms=int(timestamp_ms[heartbeat].max()) if heartbeats else NO_TIME_MS,
        rejects=rejects,
        decoded=decoded,
        valid=valid,
        kept=kept,
        heartbeat=heartbeat,
    )


def _horizon_ms(kafka_ms: Sequence[int], rules: IntakeRules, decoded: Decoded) -> NDArray[np.int64]:
    """Latest event time that is believed, for each event."""
    received_ms = np.fromiter(kafka_ms, np.int64, len(kafka_ms))
    horizon_ms = np.where(received_ms < 0, np.iinfo(np.int64).max, received_ms + rules.max_future_ms)
    return horizon_ms if decoded.counts is None else np.repeat(horizon_ms, decoded.counts)


def _invalid(
    values: Sequence[bytes | None],
    decoded: Decoded,
    valid: NDArray[np.bool_],
    unnamed: NDArray[np.bool_],
    latency_ms: NDArray[np.float64],
    heartbeat: NDArray[np.bool_],
) -> list[Reject]:
    """Explain the events that broke a rule that no decoder can check."""
    counts = np.ones(len(values), np.int64) if decoded.counts is None else decoded.counts
    rows = np.flatnonzero(~valid)
    record = np.repeat(np.arange(len(values)), counts)[rows]
    place = rows - (np.cumsum(counts) - counts)[record]
    flaw = np.where(unnamed[rows], 0, np.where(latency_ms[rows] < 0, 1, 2))
    flaw[heartbeat[rows]] = 2
    gone: dict[int, set[int]] = {}
    for reject in decoded.rejects:
        if reject.item is not None:
            gone.setdefault(reject.record, set()).add(reject.item)
    split: dict[int, list[tuple[int | None, bytes]]] = {}
    rejects = []
    for number, at, why in zip(record.tolist(), place.tolist(), flaw.tolist(), strict=True):
        if number not in split:
            split[number] = _good_items(values[number] or b"", gone.get(number, set()))
        item, value = split[number][at]
        rejects.append(Reject(number, item, value, _FLAWS[why]))
    return rejects


def _good_items(value: bytes, gone: set[int]) -> list[tuple[int | None, bytes]]:
    items = split_items(value)
    if items is None:
        return [(None, value)]
    return [(number, item) for number, item in enumerate(items) if number not in gone]

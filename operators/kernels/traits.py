"""What the bridge wants to know of accepted events beyond their columns: status codes, and traces of the slowest."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from operators.kernels.decode import Event
    from operators.kernels.intake import EventColumns, Intake

LONGEST_TRACE_ID: Final = 120
"""Longest trace id that becomes an exemplar: with the name of its label it has the 128 characters that are allowed."""


@dataclass(frozen=True, slots=True)
class Traits:
    """Traits of the n accepted events of one read.

    Attributes:
        status: Shape (n,), int64: status code of each event.
        slowest: Shape (4, k), int64: series code, pane, latency in µs and event time in ms of the slowest event that
            has a trace id, one for each series and pane that has one.
        trace_ids: Its trace id, length k.
    """

    status: NDArray[np.int64]
    slowest: NDArray[np.int64]
    trace_ids: list[str]


def traits_of(records: Sequence[object], got: Intake) -> Traits:
    """Look at the events of one read.

    Args:
        records: The records they came in.
        got: What became of them.

    Returns:
        Their traits. Of several that are equally slow the earliest counts, then the one with the smallest id, so that
        it does not matter how a log is split into reads.
    """
    events: Sequence[Event] = got.decoded.events
    if len(got.columns.code) < len(events):
        events = list(compress(events, got.accepted.tolist()))
    status = np.fromiter([event.status for event in events], np.int64, len(events))
    return Traits(status, *_slowest(events, got.columns))


def _slowest(events: Sequence[Event], columns: EventColumns) -> tuple[NDArray[np.int64], list[str]]:
    """Find the slowest traced event of each series and pane; see `Traits`."""
    # A plain `Event` has no such field, and a producer may have put anything into it.
    ids = [getattr(event, "trace_id", None) for event in events]
    fit = [row for row, name in enumerate(ids) if type(name) is str and 0 < len(name) <= LONGEST_TRACE_ID]
    rows = np.array(fit, np.int64)
    if not len(rows):
        return np.zeros((4, 0), np.int64), []
    code, pane, latency_us = columns.code[rows], columns.pane[rows], columns.latency_us[rows]
    order = np.lexsort((-latency_us, pane, code))
    code, pane, latency_us, rows = code[order], pane[order], latency_us[order], rows[order]
    starts = np.flatnonzero(np.concatenate([[True], (code[1:] != code[:-1]) | (pane[1:] != pane[:-1])]))
    sizes = np.diff(starts, append=len(rows))
    tied = np.flatnonzero(latency_us == np.repeat(latency_us[starts], sizes))
    group = np.repeat(np.arange(len(starts)), sizes)[tied].tolist()
    best: dict[int, tuple[int, str]] = {}
    for number, row in zip(group, rows[tied].tolist(), strict=True):
        found = (events[row].timestamp_ms, str(ids[row]))
        best[number] = min(found, best.get(number, found))
    at_ms = np.array([best[number][0] for number in range(len(starts))], np.int64)
    slowest = np.stack([code[starts], pane[starts], latency_us[starts], at_ms])
    return slowest, [best[number][1] for number in range(len(starts))]

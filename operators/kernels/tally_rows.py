"""Requests of a frame counted by series, pane and status code, and split by shard, before they change workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.sharding import PaneRows, split_by_shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from operators.kernels.intake import EventColumns
    from operators.kernels.series import Places
    from operators.kernels.traits import Traits

STATUS_BITS: Final = 10
STATUS_MASK: Final = (1 << STATUS_BITS) - 1

_PANE_BITS: Final = 20
_NO_SLOWEST: Final = np.zeros((4, 0), np.int64)


@dataclass(frozen=True, slots=True)
class TallyRows:
    """Pre-aggregated requests of one shard.

    Attributes:
        panes: The same requests by series, pane and bucket of latency.
        series: (service, endpoint) of each series that the source has seen in this shard; the list only grows.
        codes: Shape (4, c), int64: series (index into `series`), pane, status code, requests.
        slowest: Shape (4, k), int64: series, pane, latency in µs and event time in ms of the slowest traced request.
        trace_ids: The trace id of each of `slowest`.
    """

    panes: tuple[PaneRows, ...]
    series: list[tuple[str, str]]
    codes: NDArray[np.int64]
    slowest: NDArray[np.int64]
    trace_ids: list[str]

    @property
    def requests(self) -> int:
        """How many requests there are."""
        return sum(rows.requests for rows in self.panes)

    def __reduce__(self) -> tuple[type[TallyRows], tuple[object, ...]]:
        """Take along to another process only the series that are in the rows."""
        used, index = np.unique(self.codes[0], return_inverse=True)
        codes, slowest = self.codes.copy(), self.slowest.copy()
        codes[0] = index
        slowest[0] = np.searchsorted(used, slowest[0])
        series = [self.series[number] for number in used.tolist()]
        return TallyRows, (self.panes, series, codes, slowest, self.trace_ids)


def split_tallies(columns: EventColumns, places: Places, traits: Sequence[Traits]) -> list[tuple[int, TallyRows]]:
    """Aggregate the events of a frame and split the result by shard.

    Args:
        columns: Any number of events, in any order.
        places: Where their series codes belong.
        traits: Those of all reads in the frame, in the order of the events.

    Returns:
        (shard, rows) for each shard that has any, in the order of shards.
    """
    if not len(columns.code):
        return []
    panes: dict[int, list[PaneRows]] = {}
    for shard, rows in split_by_shard(columns, places):
        panes.setdefault(shard, []).append(rows)
    codes = _by_code(columns, np.concatenate([part.status for part in traits]))
    slowest = np.concatenate([_NO_SLOWEST, *(part.slowest for part in traits)], axis=1)
    trace_ids = [name for part in traits for name in part.trace_ids]
    of_shard = dict(_by_shard(codes, places))
    traced = dict(_by_shard(slowest, places))
    result = []
    for shard, pane_rows in sorted(panes.items()):
        at = of_shard[shard]
        slow = traced.get(shard, np.zeros(0, np.intp))
        result.append(
            (
                shard,
                TallyRows(
                    panes=tuple(pane_rows),
                    series=places.series[shard],
                    codes=_numbered(codes[:, at], places),
                    slowest=_numbered(slowest[:, slow], places),
                    trace_ids=[trace_ids[number] for number in slow.tolist()],
                ),
            )
        )
    return result


def _by_code(columns: EventColumns, status: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count events by series, pane and status, shape (4, c), in the order of series."""
    panes, rank = None, columns.pane - int(columns.pane.min())
    if int(rank.max()) >> _PANE_BITS:
        panes, rank = np.unique(columns.pane, return_inverse=True)
    keys, counts = np.unique(
        (columns.code << (_PANE_BITS + STATUS_BITS)) | (rank << STATUS_BITS) | status, return_counts=True
    )
    ranks = (keys >> STATUS_BITS) & ((1 << _PANE_BITS) - 1)
    pane = ranks + int(columns.pane.min()) if panes is None else panes[ranks]
    return np.stack([keys >> (_PANE_BITS + STATUS_BITS), pane, keys & STATUS_MASK, counts])


def _by_shard(rows: NDArray[np.int64], places: Places) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each shard with the positions of its rows, of which the first has the series code."""
    shard = places.shard[rows[0]]
    order = np.argsort(shard, kind="stable")
    found, starts = np.unique(shard[order], return_index=True)
    if len(found):
        yield from zip(found.tolist(), np.split(order, starts[1:]), strict=True)


def _numbered(rows: NDArray[np.int64], places: Places) -> NDArray[np.int64]:
    """Replace series codes by their numbers within the shard; `rows` is a copy already."""
    rows[0] = places.number[rows[0]]
    return rows

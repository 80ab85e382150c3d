"""The bridge's series on the Prometheus page of one process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from sinks.tally_exposition import families, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from operators.kernels.tally_frame import TallyFrame


class TallyPage(Collector):
    """The latest frame of each shard, by reference; series are written out when somebody scrapes.

    A series is on the page while it is in the latest frame of its shard: until its time to live is over. It keeps its
    exemplar until it has another, or scrapers that come less often than panes close would not see most of them. The
    page may be scraped from other threads while the worker updates it.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._frames: dict[str, TallyFrame] = {}

    def update(self, shard: str, frame: TallyFrame) -> None:
        """Replace the latest frame of a shard."""
        before = self._frames.get(shard)
        self._frames[shard] = frame if before is None else _with_exemplars(frame, before)

    def series_text(self, *, openmetrics: bool) -> str:
        """Write the counters and histograms in one of the text formats."""
        return render(self._current(), openmetrics=openmetrics)

    def series(self) -> Iterator[Metric]:
        """Build the same as objects."""
        return families(self._current())

    def collect(self) -> Iterator[Metric]:
        """Build what is on the page beside the series: nothing."""
        return iter(())

    def _current(self) -> list[TallyFrame]:
        return [frame for _, frame in sorted(self._frames.items())]


def _with_exemplars(frame: TallyFrame, before: TallyFrame) -> TallyFrame:
    """Give a frame the exemplars that it has no newer ones for."""
    if not before.exemplars:
        return frame
    newer = {one.row for one in frame.exemplars}
    row_of = {series: row for row, series in enumerate(zip(frame.service, frame.endpoint, strict=True))}
    rows = [row_of.get((before.service[one.row], before.endpoint[one.row])) for one in before.exemplars]
    older = [
        replace(one, row=row)
        for one, row in zip(before.exemplars, rows, strict=True)
        if row is not None and row not in newer
    ]
    return replace(frame, exemplars=(*older, *frame.exemplars))

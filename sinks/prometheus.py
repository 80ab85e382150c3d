"""The Prometheus page of one process: the last closed windows, the alerts that fire, and how the flow is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from bytewax.outputs import DynamicSink, StatelessSinkPartition
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from operators.kernels.frames import ScoredFrame
from sinks.exposition import families, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from operators.alert import AlertFrame
    from operators.kernels.frames import Transition

ALERT_FIRING: Final = "tailmark_alert_firing"

_ALERT_LABELS: Final = ("alertname", "service", "endpoint", "severity")

Frame = TypeVar("Frame")
Frame_contra = TypeVar("Frame_contra", contravariant=True)


class Shows(Protocol[Frame_contra]):
    """A page that shows the latest frame of each shard."""

    def update(self, shard: str, frame: Frame_contra) -> None:
        """Replace the latest frame of a shard."""


class Page(Collector):
    """The latest frame of each shard, by reference; series are written out when somebody scrapes.

    A series is on the page while it is in the latest frame of its shard. A shard whose series are all gone sends no
    more frames, so its last one is dropped when the other shards have moved on.

    It may be scraped from other threads while the worker updates it.
    """

    def __init__(self, *, drop_after_ms: int) -> None:
        """Start empty.

        Args:
            drop_after_ms: Event time by which a shard's frame may be behind the newest one and still be shown.
        """
        self._drop_after_ms = drop_after_ms
        self._scored: dict[str, ScoredFrame] = {}
        self._firing: dict[str, AlertFrame] = {}

    def update(self, shard: str, frame: ScoredFrame | AlertFrame) -> None:
        """Replace the latest frame of a shard.

        Args:
            shard: The shard.
            frame: Its scores, or its alerts, after one more window end.
        """
        if isinstance(frame, ScoredFrame):
            self._scored[shard] = frame
        else:
            self._firing[shard] = frame

    def series_text(self, *, openmetrics: bool) -> str:  # noqa: ARG002 - gauges are the same in both
        """Write the gauges over all series, in either text format."""
        return render(self._current())

    def series(self) -> Iterator[Metric]:
        """Build the same gauges as objects."""
        return families(self._current())

    def collect(self) -> Iterator[Metric]:
        """Build the gauge of the alerts that fire."""
        family = GaugeMetricFamily(ALERT_FIRING, "1 for each alert that fires.", labels=_ALERT_LABELS)
        for alert in self._alerts():
            family.add_metric([alert.labels.get(label, "") for label in _ALERT_LABELS], 1.0)
        yield family

    def _current(self) -> list[ScoredFrame]:
        frames = [frame for _, frame in sorted(self._scored.items())]
        oldest_ms = self._newest_ms() - self._drop_after_ms
        return [frame for frame in frames if frame.windows.window_end_ms >= oldest_ms]

    def _alerts(self) -> list[Transition]:
        oldest_ms = self._newest_ms() - self._drop_after_ms
        frames = [frame for _, frame in sorted(self._firing.items()) if frame.window_end_ms >= oldest_ms]
        return [alert for frame in frames for alert in frame.firing]

    def _newest_ms(self) -> int:
        return max((frame.windows.window_end_ms for frame in list(self._scored.values())), default=0)


class _PagePartition(StatelessSinkPartition[tuple[str, Frame]]):
    """The page as the output of one worker."""

    def __init__(self, page: Shows[Frame]) -> None:
        self._page = page

    def write_batch(self, items: list[tuple[str, Frame]]) -> None:
        """Replace the latest frames of shards."""
        for shard, frame in items:
            self._page.update(shard, frame)


class PageSink(DynamicSink[tuple[str, Frame]]):
    """Shows the shards that live in a process on the page of that process."""

    def __init__(self, page: Shows[Frame]) -> None:
        """Write to a page, which the workers of the process share."""
        self._page = page

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _PagePartition[Frame]:  # noqa: ARG002
        """Give a worker its end of the page."""
        return _PagePartition(self._page)

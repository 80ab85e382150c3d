"""The part of the page that tells of the archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from sinks.parquet import ParquetSink


class ArchiveCollector(Collector):
    """Reads the counts of an archive when somebody scrapes."""

    def __init__(self, sink: ParquetSink) -> None:
        """Read from a live sink.

        Args:
            sink: The archive.
        """
        self._sink = sink

    def collect(self) -> Iterator[Metric]:
        """Build the families."""
        counts = self._sink.counts()
        rows = CounterMetricFamily(
            "tailmark_archive_rows",
            "Rows of the archive: on disk, seen by readers, or dropped because the archive had them already.",
            labels=("outcome",),
        )
        for outcome, count in (
            ("staged", counts.staged),
            ("published", counts.published),
            ("repeated", counts.repeated),
        ):
            rows.add_metric([outcome], count)
        yield rows
        yield CounterMetricFamily("tailmark_archive_files", "Parquet files published.", value=counts.files)
        yield GaugeMetricFamily(
            "tailmark_archive_waiting_rows", "Rows on disk that readers don't see yet.", value=counts.waiting
        )
        yield GaugeMetricFamily(
            "tailmark_archive_waiting_seconds",
            "How long the oldest rows have waited that readers don't see yet.",
            value=counts.waiting_s,
        )

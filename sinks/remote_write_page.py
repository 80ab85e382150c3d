"""What the page says of remote write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sinks.remote_write_delivery import DeliveryCounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from sinks.remote_write import RemoteWriteSink


class RemoteWriteCollector(Collector):
    """Reads what the senders of a process did when somebody scrapes."""

    def __init__(self, sink: RemoteWriteSink) -> None:
        """Read from a live sink."""
        self._sink = sink

    def collect(self) -> Iterator[Metric]:
        """Build all families."""
        senders = list(self._sink.senders)
        counts = [sender.counts for sender in senders]
        samples = CounterMetricFamily(
            "tailmark_remote_write_samples",
            "Samples by what became of them; those refused for a reason are not in Prometheus.",
            labels=("outcome",),
        )
        for outcome in DeliveryCounts().samples:
            samples.add_metric([outcome], sum(one.samples[outcome] for one in counts))
        yield samples
        yield CounterMetricFamily(
            "tailmark_remote_write_retries",
            "Requests that were sent again because the receiver did not take them.",
            value=sum(one.retries for one in counts),
        )
        yield GaugeMetricFamily(
            "tailmark_remote_write_waiting_samples",
            "Samples that wait to be delivered.",
            value=sum(sender.waiting_samples for sender in senders),
        )

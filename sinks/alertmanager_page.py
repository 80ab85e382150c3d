"""The part of the page that says how the delivery of alerts goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from sinks.alertmanager import AlertDelivery


class DeliveryCollector(Collector):
    """Reads the counts of a delivery when somebody scrapes."""

    def __init__(self, delivery: AlertDelivery) -> None:
        """Read from a live delivery."""
        self._delivery = delivery

    def collect(self) -> Iterator[Metric]:
        """Build all families."""
        alerts = CounterMetricFamily(
            "tailmark_alertmanager_alerts",
            "Alerts sent to each Alertmanager, every time they were, by whether it took them.",
            labels=("replica", "outcome"),
        )
        success = GaugeMetricFamily(
            "tailmark_alertmanager_last_success_timestamp_seconds",
            "When each Alertmanager last took what was sent; it is asked even when there is nothing to tell.",
            labels=("replica",),
        )
        for name, counts in self._delivery.counts():
            alerts.add_metric([name, "sent"], counts.sent)
            alerts.add_metric([name, "failed"], counts.failed)
            # 0 and not absent before the first time, so that an alert on its age fires for one that never answered.
            success.add_metric([name], counts.succeeded_s or 0.0)
        yield from (alerts, success)
        episodes = self._delivery.episodes
        yield GaugeMetricFamily("tailmark_alertmanager_open_alerts", "Episodes that are open.", value=episodes.open())
        yield GaugeMetricFamily(
            "tailmark_alertmanager_held_alerts",
            "Open episodes of long ago that nobody is told of until the flow has caught up.",
            value=episodes.held,
        )
        yield CounterMetricFamily(
            "tailmark_alertmanager_stale_alerts",
            "Episodes that were over before anybody was told, such as those of a backlog.",
            value=episodes.stale,
        )

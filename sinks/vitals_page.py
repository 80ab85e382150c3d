"""The part of the page that every flow has: what it read, how far behind it is, and what its epochs cost."""

from __future__ import annotations

import time
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from operators.kernels.episodes.suppression import REASONS
from operators.vitals import EPOCH_BUCKETS_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from operators.vitals import PartitionVitals, Vitals
    from sinks.kafka import ExactlyOnceKafkaSink

_MS_PER_S: Final = 1000


class VitalsCollector(Collector):
    """Reads the vitals of a flow, and the counts of its Kafka sinks, when somebody scrapes."""

    def __init__(
        self,
        vitals: Vitals,
        sinks: Mapping[str, ExactlyOnceKafkaSink],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read from live objects.

        Args:
            vitals: What the flow writes.
            sinks: The Kafka sinks of the flow, by topic.
            clock: Seconds since the epoch; ages on the page are measured against it.
        """
        self._vitals = vitals
        self._sinks = dict(sinks)
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Build all families that the flow has values for."""
        vitals = self._vitals
        events = CounterMetricFamily(
            "tailmark_events", "Events read, by what became of them.", labels=("flow", "outcome")
        )
        for outcome, count in vitals.events.items():
            events.add_metric([vitals.flow, outcome], count)
        yield events
        yield from self._partitions()
        shards = list(vitals.shards)
        yield GaugeMetricFamily("tailmark_series", "Series with state.", value=sum(shard.series for shard in shards))
        warming = [shard.warming for shard in shards if shard.warming is not None]
        if warming:
            yield GaugeMetricFamily(
                "tailmark_series_warming", "Series that are too young to be judged.", value=sum(warming)
            )
            held_back = CounterMetricFamily(
                "tailmark_alerts_held_back", "Anomalies that opened no alert, by the reason.", labels=("reason",)
            )
            for reason in REASONS:
                held_back.add_metric([reason], sum(shard.held_back.get(reason, 0) for shard in shards))
            yield held_back
        yield CounterMetricFamily(
            "tailmark_folded_series",
            "New series folded into __overflow__ because there were too many, once a pane.",
            value=sum(shard.folded for shard in shards),
        )
        size = sum(shard.snapshot_bytes for shard in shards)
        yield GaugeMetricFamily("tailmark_snapshot_bytes", "Size of the latest snapshot of all shards.", value=size)
        yield self._epochs()
        yield self._outputs()

    def _partitions(self) -> Iterator[Metric]:
        """Build what there is for each partition of the input."""
        labels = ("topic", "partition")
        lag_events = GaugeMetricFamily("tailmark_lag_events", "Records not read yet.", labels=labels)
        lag_seconds = GaugeMetricFamily(
            "tailmark_lag_seconds", "Age of the record read last; 0 at the end of the log.", labels=labels
        )
        watermark = GaugeMetricFamily(
            "tailmark_watermark_timestamp_seconds", "Event time up to which windows may close.", labels=labels
        )
        heartbeat = GaugeMetricFamily(
            "tailmark_heartbeat_age_seconds", "Time since the latest heartbeat was sent.", labels=("partition",)
        )
        now, silent = self._clock(), self._vitals.cluster_is_silent()
        for number, partition in sorted(self._vitals.partitions.items()):
            where = [self._vitals.topic, str(number)]
            lag_events.add_metric(where, partition.lag_events)
            lag_s = lag_in_seconds(partition, now, silent=silent)
            if lag_s is not None:
                lag_seconds.add_metric(where, lag_s)
            if partition.watermark_ms is not None:
                watermark.add_metric(where, partition.watermark_ms / _MS_PER_S)
            if partition.heartbeat_ms is not None:
                heartbeat.add_metric([str(number)], now - partition.heartbeat_ms / _MS_PER_S)
        yield from (lag_events, lag_seconds, watermark, heartbeat)

    def _epochs(self) -> Metric:
        """Build the histogram of epoch durations."""
        counts = [float(count) for count in accumulate(list(self._vitals.epoch_counts))]
        bounds = [*(str(float(bound)) for bound in EPOCH_BUCKETS_S), "+Inf"]
        return HistogramMetricFamily(
            "tailmark_epoch_duration_seconds",
            "Time from one snapshot to the next.",
            buckets=list(zip(bounds, counts, strict=True)),
            sum_value=self._vitals.epoch_seconds,
        )

    def _outputs(self) -> Metric:
        """Build what the Kafka sinks did."""
        family = CounterMetricFamily(
            "tailmark_output_records",
            "Records of the output: written, suppressed because they were there already, or expected back in vain.",
            labels=("topic", "outcome"),
        )
        for topic, sink in sorted(self._sinks.items()):
            counts = sink.counts()
            for outcome, count in (
                ("written", counts.written),
                ("suppressed", counts.suppressed),
                ("expired", counts.expired),
            ):
                family.add_metric([topic, outcome], count)
        return family


def lag_in_seconds(partition: PartitionVitals, now_s: float, *, silent: bool = False) -> float | None:
    """Tell how old what a partition brought last was, when there is more to read.

    Args:
        partition: State of a partition.
        now_s: Seconds since the epoch.
        silent: Whether the cluster says nothing any more: then nobody knows that this is the end of the log.

    Returns:
        Seconds, 0 at the end of the log; None while nothing has been read.
    """
    if not silent and (partition.at_end or partition.lag_events == 0):
        return 0.0
    if partition.record_ms is None:
        return None
    return max(0.0, now_s - partition.record_ms / _MS_PER_S)


def largest_lag_s(vitals: Vitals, now_s: float) -> float | None:
    """Tell how far behind a process is.

    Args:
        vitals: How its flow is doing.
        now_s: Seconds since the epoch.

    Returns:
        The lag of its slowest partition in seconds, 0 without partitions; None while one has not been read.
    """
    silent = vitals.cluster_is_silent()
    lags = [lag_in_seconds(partition, now_s, silent=silent) for partition in list(vitals.partitions.values())]
    return None if None in lags else max((lag for lag in lags if lag is not None), default=0.0)

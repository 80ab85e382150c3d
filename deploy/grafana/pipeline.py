"""The dashboard of the pipeline itself: is it reading, how far behind is it, and what does it leave out?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import Query, choice, graph, new, number

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.timeseries import Panel

    from deploy.grafana.panels import AnyPanel

UID: Final = "tailmark-pipeline"

_JOB: Final = 'job=~"$job"'


def build() -> dashboard.Dashboard:
    """Build the dashboard."""
    board = new("Tailmark: the pipeline", UID, "How the flows themselves are doing.").with_variable(
        choice("job", "Flow", "label_values(tailmark_events_total, job)", several=True)
    )
    for panel in _now():
        board = board.with_panel(panel)
    rows = (
        ("Input", _input()),
        ("Event time", _event_time()),
        ("State and output", _state()),
        ("Bridge and archive", _bridge_and_archive()),
    )
    for title, panels in rows:
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return board


def _now() -> list[AnyPanel]:
    return [
        number("Processes that answer", "Of all that Prometheus scrapes.", f"sum(up{{{_JOB}}})"),
        number(
            "Behind", "Age of the oldest record that a flow has just read.",
            f"max(tailmark_lag_seconds{{{_JOB}}})", unit="s", warn=10, bad=60,
        ),
        number(
            "Dead letters", "Share of what is read that is no event.",
            f'sum(rate(tailmark_events_total{{outcome="dead_letter", {_JOB}}}[$__rate_interval]))'
            f" / (sum(rate(tailmark_events_total{{{_JOB}}}[$__rate_interval])) > 0)",
            unit="percentunit", warn=0.001, bad=0.01,
        ),
        number(
            "Late", "Share of the events that came after their windows had closed.",
            f'sum(rate(tailmark_events_total{{outcome="late", {_JOB}}}[$__rate_interval]))'
            f" / (sum(rate(tailmark_events_total{{{_JOB}}}[$__rate_interval])) > 0)",
            unit="percentunit", warn=0.001, bad=0.01,
        ),
    ]  # fmt: skip


def _input() -> list[Panel]:
    return [
        graph(
            "Events by what became of them", "Accepted, late, dead letters, and heartbeats, which are no events.",
            [Query(
                f"sum by (flow, outcome) (rate(tailmark_events_total{{{_JOB}}}[$__rate_interval]))",
                "{{flow}} {{outcome}}",
            )],
            unit="cps",
        ),
        graph(
            "Lag in seconds", "Age of what a partition brought last; 0 at its end.",
            [Query(f"max by (job, partition) (tailmark_lag_seconds{{{_JOB}}})", "{{job}} {{partition}}")], unit="s",
        ),
        graph(
            "Lag in records", "Records of a partition that have not been read.",
            [Query(f"max by (job, partition) (tailmark_lag_events{{{_JOB}}})", "{{job}} {{partition}}")],
        ),
        graph(
            "Age of the latest heartbeat", "By partition, of those that have heartbeats.",
            [Query(
                f"min by (job, partition) (tailmark_heartbeat_age_seconds{{{_JOB}}})", "{{job}} {{partition}}",
            )],
            unit="s", floor=None,
        ),
    ]  # fmt: skip


def _event_time() -> list[Panel]:
    return [
        graph(
            "Watermarks behind the clock",
            "Windows close up to here. The slowest partition that is not idle holds back all of them.",
            [Query(
                f"time() - min by (job, partition) (tailmark_watermark_timestamp_seconds{{{_JOB}}})",
                "{{job}} {{partition}}",
            )],
            unit="s", floor=None,
        ),
        graph(
            "Watermarks apart", "Event time between the fastest and the slowest partition.",
            [Query(
                f"max by (job) (tailmark_watermark_timestamp_seconds{{{_JOB}}})"
                f" - min by (job) (tailmark_watermark_timestamp_seconds{{{_JOB}}})",
                "{{job}}",
            )],
            unit="s",
        ),
    ]  # fmt: skip


def _state() -> list[Panel]:
    return [
        graph(
            "Epochs", "Time from one snapshot to the next: the snapshot interval, and what the snapshot itself takes.",
            [Query(
                "histogram_quantile(0.99, sum by (job, le) "
                f"(rate(tailmark_epoch_duration_seconds_bucket{{{_JOB}}}[$__rate_interval])))",
                "{{job}} P99",
            ), Query(
                f"sum by (job) (rate(tailmark_epoch_duration_seconds_sum{{{_JOB}}}[$__rate_interval]))"
                f" / sum by (job) (rate(tailmark_epoch_duration_seconds_count{{{_JOB}}}[$__rate_interval]))",
                "{{job}} mean",
            )],
            unit="s",
        ),
        graph(
            "Snapshots", "Size of the latest snapshot of all shards.",
            [Query(f"sum by (job) (tailmark_snapshot_bytes{{{_JOB}}})", "{{job}}")], unit="bytes",
        ),
        graph(
            "Series", "Those with state, those too young to be judged, and new ones folded as there were too many.",
            [Query(f"sum by (job) (tailmark_series{{{_JOB}}})", "{{job}}"),
             Query(f"sum by (job) (tailmark_series_warming{{{_JOB}}})", "{{job}} warming"),
             Query(
                 f"sum by (job) (increase(tailmark_folded_series_total{{{_JOB}}}[$__rate_interval]))",
                 "{{job}} folded",
             )],
        ),
        graph(
            "Records of the output",
            "Written; suppressed, because they were there already, which is normal after a crash; expected in vain.",
            [Query(
                f"sum by (topic, outcome) (rate(tailmark_output_records_total{{{_JOB}}}[$__rate_interval]))",
                "{{topic}} {{outcome}}",
            )],
            unit="cps",
        ),
    ]  # fmt: skip


def _bridge_and_archive() -> list[Panel]:
    return [
        graph(
            "Samples written to Prometheus", "By what became of them. Those that were refused are not in Prometheus.",
            [Query(
                f"sum by (outcome) (rate(tailmark_remote_write_samples_total{{{_JOB}}}[$__rate_interval]))",
                "{{outcome}}",
            )],
            unit="cps",
        ),
        graph(
            "Samples that wait", "For Prometheus to take them; when too many do, the bridge stops reading.",
            [Query(f"sum(tailmark_remote_write_waiting_samples{{{_JOB}}})", "waiting"),
             Query(f"sum(increase(tailmark_remote_write_retries_total{{{_JOB}}}[$__rate_interval]))", "retries")],
        ),
        graph(
            "Rows of the archive", "Staged on disk, published to readers, or dropped because they were there already.",
            [Query(
                f"sum by (outcome) (rate(tailmark_archive_rows_total{{{_JOB}}}[$__rate_interval]))", "{{outcome}}",
            )],
            unit="cps",
        ),
        graph(
            "Age of what readers of the archive don't see", "Rows are published every ten minutes by default.",
            [Query(f"max(tailmark_archive_waiting_seconds{{{_JOB}}})", "oldest row")], unit="s",
        ),
    ]  # fmt: skip

"""The dashboard to review alerts with: what fires, what fired, what it was worth, and whether it was delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import THIRD, WHOLE, Query, choice, graph, new, number, rows, timeline

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.timeseries import Panel

    from deploy.grafana.panels import AnyPanel

UID: Final = "tailmark-alerts"

_OF: Final = 'service=~"$service"'
_NAME: Final = "{{alertname}} {{service}} {{endpoint}}"


def build() -> dashboard.Dashboard:
    """Build the dashboard."""
    board = (
        new("Tailmark: review of alerts", UID, "Which alerts fired, for how long, and what became of them.")
        .time("now-24h", "now")
        .with_variable(
            choice("service", "Service", "label_values(tailmark_requests_per_second, service)", several=True)
        )
    )
    for panel in (*_now(), *_review()):
        board = board.with_panel(panel)
    for title, panels in (("With and without the stream", _comparison()), ("Delivery", _delivery())):
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return board


def _now() -> list[AnyPanel]:
    return [
        number("Firing", "Alerts of the stream.", f"count(tailmark_alert_firing{{{_OF}}}) or vector(0)", warn=1, bad=5),
        number(
            "Critical", "Those that page.",
            f'count(tailmark_alert_firing{{severity="critical", {_OF}}}) or vector(0)', bad=1,
        ),
        number(
            "About the pipeline", "Alerts of Prometheus about Tailmark itself, the watchdog left out.",
            'count(ALERTS{alertname=~"Tailmark.+", alertname!="TailmarkWatchdog", alertstate="firing"}) or vector(0)',
            warn=1, bad=2,
        ),
        number(
            "Never sent", "Alerts that were over before anybody was told, such as those of a backlog.",
            "sum(tailmark_alertmanager_stale_alerts_total)",
        ),
    ]  # fmt: skip


def _review() -> list[AnyPanel]:
    return [
        timeline(
            "When alerts fired", "Each line is one alert, seen from the scrape after the window that opened it.",
            Query(f"max by (alertname, service, endpoint) (tailmark_alert_firing{{{_OF}}})", _NAME),
        ),
        rows(
            "Minutes of firing", "What to look at first: what fires long or often and nobody acts upon is set wrongly.",
            "sort_desc(sum by (alertname, service, endpoint, severity) "
            f"(count_over_time(tailmark_alert_firing{{{_OF}}}[$__range:$__interval])) * $__interval_ms / 60000)",
        ),
        graph(
            "Highest scores", "From 1 on a window is anomalous: how far above were those that paged?",
            [Query(f"max by (service, signal) (tailmark_anomaly_score{{{_OF}}})", "{{service}} {{signal}}")],
        ),
        graph(
            "Held back", "Anomalies that opened no alert: maintenance, feedback, the budget, or too many at once.",
            [Query("sum by (reason) (increase(tailmark_alerts_held_back_total[$__rate_interval]))", "{{reason}}")],
            span=WHOLE,
        ),
    ]  # fmt: skip


def _comparison() -> list[Panel]:
    p99 = "service_endpoint:telemetry_request_duration_seconds:p99_1m"
    return [
        graph(
            "Latency alerts", "The stream's LatencyAnomaly beside the rule that Prometheus evaluates without it.",
            [Query('count(tailmark_alert_firing{alertname="LatencyAnomaly"}) or vector(0)', "with the stream"),
             Query(
                 'count(ALERTS{alertname="LatencyAnomalyWithoutStream", alertstate="firing"}) or vector(0)',
                 "without the stream",
             )],
        ),
        graph(
            "Highest P99 as both see it", "From the windows of the stream, and from buckets that were scraped.",
            [Query(f'max by (service) (tailmark_latency_seconds{{quantile="0.99", {_OF}}})', "{{service}} stream"),
             Query(f"max by (service) ({p99}{{{_OF}}})", "{{service}} scraped")],
            unit="s",
        ),
    ]  # fmt: skip


def _delivery() -> list[Panel]:
    return [
        graph(
            "Sent to Alertmanager", "Alerts are sent again and again while they are open: this is no number of pages.",
            [Query(
                "sum by (replica, outcome) (rate(tailmark_alertmanager_alerts_total[$__rate_interval]))",
                "{{replica}} {{outcome}}",
            )],
            unit="cps", span=THIRD,
        ),
        graph(
            "Since each Alertmanager last answered", "It is asked every minute, also when there is nothing to tell.",
            [Query("time() - max by (replica) (tailmark_alertmanager_last_success_timestamp_seconds)", "{{replica}}")],
            unit="s", span=THIRD,
        ),
        graph(
            "Open and held", "Held are alerts of long ago, until the flow has caught up.",
            [Query("sum(tailmark_alertmanager_open_alerts)", "open"),
             Query("sum(tailmark_alertmanager_held_alerts)", "held")],
            span=THIRD,
        ),
    ]  # fmt: skip

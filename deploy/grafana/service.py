"""The dashboard of one service: what it does, what was expected of it, and which alerts fire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import RED, SOURCE, THIRD, Query, choice, graph, new, number

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.timeseries import Panel

    from deploy.grafana.panels import AnyPanel

UID: Final = "tailmark-service"

_ONE: Final = 'service="$service", endpoint=~"$endpoint"'
_BAND: Final[dict[str, dict[str, object]]] = {
    "highest normal": {"custom.lineWidth": 0, "custom.fillBelowTo": "expected", "custom.fillOpacity": 12},
    "lowest normal": {"custom.lineWidth": 0},
    "expected": {"custom.lineStyle": {"fill": "dash", "dash": [6, 4]}, "custom.lineWidth": 1},
}
_TWO_SIDED: Final = {
    **_BAND,
    "highest normal": {"custom.lineWidth": 0, "custom.fillBelowTo": "lowest normal", "custom.fillOpacity": 12},
}


def build() -> dashboard.Dashboard:
    """Build the dashboard."""
    board = (
        new("Tailmark: a service", UID, "Latency, errors and traffic of a service with what was expected of them.")
        .with_variable(
            choice("service", "Service", "label_values(tailmark_requests_per_second, service)", several=False)
        )
        .with_variable(
            choice(
                "endpoint",
                "Endpoint",
                'label_values(tailmark_requests_per_second{service="$service"}, endpoint)',
                several=True,
            )
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Alerts")
            .datasource(SOURCE)
            .enable(True)  # noqa: FBT003 - the builder takes it so
            .icon_color(RED)
            .expr('tailmark_alert_firing{service="$service"}')
        )
    )
    for panel in _now():
        board = board.with_panel(panel)
    board = board.with_row(dashboard.Row("Bands of every endpoint"))
    for panel in _bands():
        board = board.with_panel(panel.repeat("endpoint").repeat_direction("h").max_per_row(3))
    board = board.with_row(dashboard.Row("All endpoints"))
    for panel in _overview():
        board = board.with_panel(panel)
    return board


def _now() -> list[AnyPanel]:
    return [
        number(
            "Alerts", "Alerts of this service that fire now.",
            'count(tailmark_alert_firing{service="$service"}) or vector(0)', warn=1, bad=2,
        ),
        number(
            "Requests", "Requests per second in the last closed window.",
            f"sum(tailmark_requests_per_second{{{_ONE}}})", unit="reqps",
        ),
        number(
            "Errors", "Share of the requests with a status of 500 or more, by weight of the endpoints.",
            f"sum(tailmark_error_ratio{{{_ONE}}} * tailmark_requests_per_second{{{_ONE}}})"
            f" / (sum(tailmark_requests_per_second{{{_ONE}}}) > 0)",
            unit="percentunit", warn=0.01, bad=0.05,
        ),
        number(
            "Slowest endpoint", "The highest P99 of the chosen endpoints.",
            f'max(tailmark_latency_seconds{{quantile="0.99", {_ONE}}})', unit="s",
        ),
    ]  # fmt: skip


def _bands() -> list[Panel]:
    def band(signal: str, side: str) -> str:
        return f'tailmark_anomaly_{side}{{signal="{signal}", {_ONE}}}'

    one_sided = ("expected", "expected"), ("upper", "highest normal")
    return [
        graph(
            "P99 of $endpoint", "The 99th percentile, and the band in which it is normal.",
            [Query(f'tailmark_latency_seconds{{quantile="0.99", {_ONE}}}', "P99"),
             *(Query(band("latency", side), name) for side, name in one_sided)],
            unit="s", span=THIRD, overrides=_BAND,
        ),
        graph(
            "Errors of $endpoint", "Share of requests with a status of 500 or more, and how many are normal.",
            [Query(f"tailmark_error_ratio{{{_ONE}}}", "errors"),
             *(Query(band("errors", side), name) for side, name in one_sided)],
            unit="percentunit", span=THIRD, overrides=_BAND,
        ),
        graph(
            "Traffic of $endpoint", "Requests per second, and the band in which they are normal.",
            [Query(f"tailmark_requests_per_second{{{_ONE}}}", "requests"),
             *(Query(band("traffic", side), name) for side, name in (*one_sided, ("lower", "lowest normal")))],
            unit="reqps", span=THIRD, overrides=_TWO_SIDED,
        ),
    ]  # fmt: skip


def _overview() -> list[Panel]:
    return [
        graph(
            "Anomaly scores", "From 1 on a window is anomalous.",
            [Query(f"max by (endpoint, signal) (tailmark_anomaly_score{{{_ONE}}})", "{{endpoint}} {{signal}}")],
        ),
        graph(
            "P50, P90 and P99", "Of the last closed window. Quantiles can't be averaged over endpoints.",
            [Query(f"tailmark_latency_seconds{{{_ONE}}}", "{{endpoint}} {{quantile}}")], unit="s",
        ),
        graph(
            "P99 of the whole service",
            "From the histograms of the bridge, which can be added up. The points are traces of slow requests.",
            [Query(
                'histogram_quantile(0.99, sum(rate(telemetry_request_duration_seconds{service="$service"}'
                "[$__rate_interval]))) or histogram_quantile(0.99, sum by (le) "
                '(rate(telemetry_request_duration_seconds_bucket{service="$service"}[$__rate_interval])))',
                "P99", exemplars=True,
            )],
            unit="s",
        ),
        graph(
            "Status codes", "Requests per second by status code, from the counters of the bridge.",
            [Query(
                f"sum by (code) (rate(telemetry_requests_total{{{_ONE}}}[$__rate_interval]))", "{{code}}",
            )],
            unit="reqps",
        ),
    ]  # fmt: skip

"""The panels that the dashboards are made of: one way to draw each thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, text, timeseries
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode, VisibilityMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

    AnyPanel = Builder[Panel]

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""Whatever Prometheus the reader chooses; the first one by default."""

GREEN: Final = "green"
ORANGE: Final = "orange"
RED: Final = "red"

HALF: Final = 12
THIRD: Final = 8
QUARTER: Final = 6
WHOLE: Final = 24
_STAT_HEIGHT: Final = 4
_GRAPH_HEIGHT: Final = 8


class Query(NamedTuple):
    """One query of a panel.

    Attributes:
        expr: PromQL.
        legend: Template of the names of its series.
        exemplars: Whether exemplars are drawn.
    """

    expr: str
    legend: str
    exemplars: bool = False


def graph(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    span: int = HALF,
    floor: float | None = 0,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> timeseries.Panel:
    """Draw lines over time.

    Args:
        title: Of the panel.
        description: What it shows, for the person who doesn't know.
        queries: Its lines.
        unit: Grafana's name of the unit.
        span: Columns of 24.
        floor: Lowest value of the axis; None for that of the data.
        overrides: Properties of single lines, by name.

    Returns:
        The panel.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(_GRAPH_HEIGHT)
        .fill_opacity(0)
        .line_width(1)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)  # noqa: FBT003 - the builder takes it so
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if floor is not None:
        panel = panel.min(floor)
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number).range())
    for name, properties in (overrides or {}).items():
        panel = panel.override_by_name(
            name, [DynamicConfigValue(id_val=key, value=value) for key, value in properties.items()]
        )
    return panel


def number(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str = "short",
    span: int = QUARTER,
    warn: float | None = None,
    bad: float | None = None,
    legend: str = "",
) -> stat.Panel:
    """Show the value of now, coloured by how bad it is.

    Args:
        title: Of the panel.
        description: What it shows.
        expr: PromQL.
        unit: Grafana's name of the unit.
        span: Columns of 24.
        warn: From here on it is orange.
        bad: From here on it is red.
        legend: Template of the name of each series, where there are several.

    Returns:
        The panel.
    """
    steps = [Threshold(value=None, color=GREEN)]
    steps += [Threshold(value=value, color=color) for value, color in ((warn, ORANGE), (bad, RED)) if value is not None]
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(_STAT_HEIGHT)
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(_target(Query(expr, legend), 0).instant())
    )


def rows(title: str, description: str, expr: str, *, span: int = HALF) -> table.Panel:
    """Show the labels and values of now as a table."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(span)
        .height(_GRAPH_HEIGHT)
        .with_target(_target(Query(expr, ""), 0).instant().format(PromQueryFormat.TABLE))
    )


def timeline(title: str, description: str, query: Query, *, span: int = WHOLE) -> statetimeline.Panel:
    """Show when each of several things was the case."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(span)
        .height(_GRAPH_HEIGHT)
        .show_value(VisibilityMode.NEVER)
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(ThresholdsMode.ABSOLUTE)
            .steps([Threshold(value=None, color=GREEN), Threshold(value=1, color=RED)])
        )
        .with_target(_target(query, 0).range())
    )


def page(markdown: str) -> text.Panel:
    """Show a text."""
    return text.Panel().title("").mode(TextMode.MARKDOWN).content(markdown).span(WHOLE).height(18).transparent(True)  # noqa: FBT003


def new(title: str, uid: str, description: str) -> dashboard.Dashboard:
    """Begin a dashboard that lets the reader choose a Prometheus.

    Args:
        title: Of the dashboard.
        uid: Its address.
        description: What it is for.

    Returns:
        The dashboard, without panels.
    """
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["tailmark"])
        .timezone("utc")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )


def choice(name: str, label: str, values: str, *, several: bool) -> dashboard.QueryVariable:
    """Let the reader choose a value of a label.

    Args:
        name: Of the variable.
        label: What the reader sees.
        values: Such as `label_values(metric, label)`.
        several: Whether several can be chosen, and all of them at once, which is the default then.

    Returns:
        The variable.
    """
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": values, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(several)
        .include_all(several)
    )
    return variable.current(VariableOption(text="All", value="$__all")) if several else variable


def _target(query: Query, number: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .ref_id(chr(ord("A") + number))
        .expr(query.expr)
        .legend_format(query.legend)
        .exemplar(query.exemplars)
    )

"""Plots of a series: what was measured, the band that decides, what was anomalous, alerts, and what really happened.

Needs the extra `notebooks`. Marks have styles and no colours of their own, so that one plot suits light and dark.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import altair as alt
import numpy as np
import polars as pl

from operators.kernels.frames import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from local.demo.matching import Alert, Incident

Look: TypeAlias = Literal["light", "dark"]

SUFFIXES: Final = (".html", ".svg", ".png")
"""What a plot can be saved as; a page follows the light or dark of who reads it, a picture is light unless told."""

_COLUMNS: Final = {"latency": "p99_ms", "errors": "error_ratio", "traffic": "rate_per_s"}
_TITLES: Final = {"latency": "P99, ms", "errors": "errors, ratio", "traffic": "requests/s"}
_CAPTION: Final = (
    "line: measured · dashes: expected · shade: normal · dots: anomalous · bar on top: alert open · grey: incident"
)
_HEADROOM: Final = 1.15
_BAND_SHOWN: Final = 3.0
_BAR_PX: Final = 7
_PANEL_PX: Final = 150

_INK: Final[dict[Look, dict[str, str]]] = {
    "light": {"paper": "#ffffff", "text": "#30363d", "grid": "#e6e9ed", "line": "#1b5e9b", "band": "#4c8fcc",
              "expected": "#6b7682", "anomaly": "#d1242f", "alert": "#e8730c", "incident": "#7d8590"},
    "dark": {"paper": "#14181d", "text": "#d3d9e0", "grid": "#2a3038", "line": "#8cc4ff", "band": "#5b9bd9",
             "expected": "#9aa5b1", "anomaly": "#ff7b72", "alert": "#ffa657", "incident": "#aab3bd"},
}  # fmt: skip


def look_of(look: Look) -> dict[str, Any]:
    """Give the colours of a look, as a Vega-Lite configuration."""
    ink = _INK[look]
    quiet = {"labelColor": ink["text"], "titleColor": ink["text"], "gridColor": ink["grid"]}
    return {
        "background": ink["paper"],
        "font": "system-ui, sans-serif",
        "title": {"color": ink["text"], "subtitleColor": ink["expected"], "anchor": "start", "fontSize": 14},
        "axis": {**quiet, "domainColor": ink["grid"], "tickColor": ink["grid"], "titleFontWeight": "normal"},
        "view": {"stroke": None},
        "style": {
            "measured": {"color": ink["line"], "strokeWidth": 1.6},
            "bar": {"color": ink["line"]},
            "band": {"color": ink["band"], "fillOpacity": 0.2},
            "expected": {"color": ink["expected"], "strokeWidth": 1, "strokeDash": [4, 3]},
            "anomaly": {"color": ink["anomaly"], "filled": True, "opacity": 1, "size": 34},
            "alert": {"color": ink["alert"]},
            "incident": {"color": ink["incident"], "fillOpacity": 0.2},
        },
    }


def series_chart(
    table: pl.DataFrame,
    *,
    alerts: Iterable[Alert] = (),
    incidents: Iterable[Incident] = (),
    signals: Sequence[str] = SIGNALS,
    look: Look = "light",
    width_px: int = 760,
) -> alt.VConcatChart:
    """Draw one series.

    Args:
        table: Its windows, as `window_table` has them; of other series there is none.
        alerts: Drawn where they are about the series.
        incidents: Drawn where they touch the series.
        signals: Which to draw, from top to bottom.
        look: Colours for light or dark.
        width_px: Width of the panels.

    Returns:
        One panel a signal; the x axis is event time, UTC, and can be dragged and zoomed.

    Raises:
        ValueError: There is no window, or there is more than one series.
    """
    names = table.select("service", "endpoint").unique().rows()
    if len(names) != 1:
        raise ValueError(f"`table` must hold one series, or lines would mix; got {len(names)}")
    (service, endpoint), table = names[0], table.sort("window_end_ms")
    span = (int(table["window_end_ms"][0]), int(table["window_end_ms"][-1]))
    own = [one for one in alerts if one.service == service and one.endpoint in {endpoint, ""}]
    real = [one for one in incidents if service in one.services and (not one.endpoints or endpoint in one.endpoints)]
    panels = [
        _panel(
            table,
            signal,
            [_span(one.fired_ms, one.resolved_ms, one.alertname, span) for one in own if one.signal == signal],
            [_span(one.start_ms, one.end_ms, one.description, span) for one in real if signal in one.signals],
            width_px=width_px,
        )
        for signal in signals
    ]
    title = alt.TitleParams(f"{service} {endpoint}".strip(), subtitle=_CAPTION)
    chart: alt.VConcatChart = alt.vconcat(*panels, spacing=6).resolve_scale(x="shared").properties(title=title)
    chart.config = alt.Config(**look_of(look))
    return chart


def bar_chart(
    table: pl.DataFrame, *, category: str, value: str, look: Look = "light", width_px: int = 760
) -> alt.Chart:
    """Draw one bar a row, the longest first.

    Args:
        table: Rows with a name and a number.
        category: Column with the names.
        value: Column with the numbers.
        look: Colours for light or dark.
        width_px: Width of the plot.
    """
    chart = alt.Chart(alt.InlineData(table.select(category, value).to_dicts())).mark_bar(style="bar")
    told = [f"{category}:N", f"{value}:Q"]
    drawn: alt.Chart = chart.encode(alt.X(f"{value}:Q"), alt.Y(f"{category}:N", sort="-x"), tooltip=told)
    drawn.width, drawn.config = width_px, alt.Config(**look_of(look))
    return drawn


def save(chart: alt.VConcatChart | alt.Chart, path: Path, *, look: Look | None = None) -> None:
    """Write a plot to a file that needs no network to be looked at.

    Args:
        chart: What `series_chart` drew.
        path: Where to; its suffix is one of `SUFFIXES`.
        look: Colours; for a page None follows the reader's own choice, for a picture it is light.
    """
    chart = chart.copy()
    if path.suffix != ".html" or look is not None:
        chart.config = alt.Config(**look_of(look or "light"))
        chart.save(path, **({"inline": True} if path.suffix == ".html" else {"scale_factor": 2}))
        return
    chart.config = alt.Undefined
    page = chart.to_html(inline=True, embed_options={"config": "LOOK", "actions": False})
    choice = f"(matchMedia('(prefers-color-scheme: dark)').matches ? {json.dumps(look_of('dark'))} : {_LIGHT})"
    path.write_text(page.replace('"config": "LOOK"', f'"config": {choice}').replace("</head>", _FRAME, 1))


_LIGHT: Final = json.dumps(look_of("light"))
_FRAME: Final = (
    f"<style>body{{background:{_INK['light']['paper']}}}"
    f"@media(prefers-color-scheme:dark){{body{{background:{_INK['dark']['paper']}}}}}</style></head>"
)


def _panel(
    table: pl.DataFrame,
    signal: str,
    alerts: list[dict[str, Any]],
    incidents: list[dict[str, Any]],
    *,
    width_px: int,
) -> alt.LayerChart:
    """Draw one signal; later layers lie above earlier ones."""
    rows = table.select(
        pl.col("window_end_ms").alias("at"),
        pl.col(_COLUMNS[signal]).alias("value"),
        *(pl.col(f"{signal}_{what}").alias(what) for what in ("score", "expected", "lower", "upper")),
    ).with_columns(
        pl.when(pl.col("upper").is_not_null()).then(pl.col("lower").fill_null(0.0)).alias("lower"),
        expected=pl.when(pl.col("upper").is_not_null()).then(pl.col("expected")),
    )
    scale = alt.Scale(domain=[0, _top(rows)], nice=False)
    x = alt.X(
        "at:T",
        title=None,
        scale=alt.Scale(type="utc"),
        axis=alt.Axis(format="%H:%M", labelOverlap="greedy", tickCount=12),
    )
    y = alt.Y("value:Q", title=_TITLES[signal], scale=scale)
    base = alt.Chart(alt.InlineData(rows.to_dicts()))
    told = [alt.Tooltip("at:T", format="%d %b %H:%M:%S", title="window end"), *(f"{n}:Q" for n in rows.columns[1:])]
    layers = [
        _spans(incidents).mark_rect(style="incident", clip=True),
        base.mark_area(style="band", clip=True).encode(
            x, alt.Y("lower:Q", scale=scale, title=_TITLES[signal]), y2="upper:Q"
        ),
        base.mark_line(style="expected", clip=True).encode(x, alt.Y("expected:Q", scale=scale)),
        base.mark_line(style="measured", clip=True).encode(x, y),
        base.transform_filter("datum.score >= 1").mark_point(style="anomaly", clip=True).encode(x, y, tooltip=told),
        _spans(alerts).mark_rect(style="alert", clip=True).encode(y=alt.value(0), y2=alt.value(_BAR_PX)),
        base.mark_point(opacity=0, size=60, clip=True).encode(x, y, tooltip=told),
    ]
    drag = alt.selection_interval(bind="scales", encodings=["x"], name=f"drag_{signal}")
    panel = cast("alt.LayerChart", alt.layer(*layers).add_params(drag))
    panel.width, panel.height = width_px, _PANEL_PX
    return panel


def _top(rows: pl.DataFrame) -> float:
    """Choose where the y axis ends: above all that was measured, and above the band unless that is far away."""
    numbers = np.concatenate([rows[name].drop_nulls().to_numpy() for name in ("value", "expected")])
    highest = float(numbers.max()) if len(numbers) else 0.0
    edges = rows["upper"].drop_nulls().to_numpy()
    usual = float(np.median(edges)) if len(edges) else 0.0
    return _HEADROOM * max(highest, min(usual, _BAND_SHOWN * highest)) or 1.0


def _spans(spans: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(spans)).encode(
        alt.X("from:T", scale=alt.Scale(type="utc")), x2="to:T", tooltip="what:N"
    )


def _span(from_ms: int, to_ms: int | None, what: str, within: tuple[int, int]) -> dict[str, Any]:
    """Cut a span to the windows that are drawn."""
    first_ms, last_ms = within
    end_ms = last_ms if to_ms is None else min(to_ms, last_ms)
    return {"from": min(max(from_ms, first_ms), end_ms), "to": end_ms, "what": what}

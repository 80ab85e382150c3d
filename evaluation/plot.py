"""Plots of a series: what was measured, the band that decides, what was anomalous, alerts, and what really happened.

Needs the extra `notebooks`. Marks have styles and no colours of their own, so that one plot suits light and dark.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import altair as alt
import numpy as np
import polars as pl

from operators.kernels.frames import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from evaluation.recordings import Recording
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
_AXIS_PX: Final = 46
"""Room for the labels of the y axes, the same for all, so that times stand above each other."""

_DAY_MS: Final = 86_400_000

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
        "axisY": {"minExtent": _AXIS_PX, "titlePadding": 8},
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
        _Panel(
            _signal_rows(table, signal),
            _TITLES[signal],
            signal,
            [_span(one.fired_ms, one.resolved_ms, one.alertname, span) for one in own if one.signal == signal],
            [_span(one.start_ms, one.end_ms, one.description, span) for one in real if signal in one.signals],
        )
        for signal in signals
    ]
    return _together(f"{service} {endpoint}".strip(), panels, look=look, width_px=width_px)


def recording_chart(
    recording: Recording,
    rows: pl.DataFrame,
    *,
    alerts_ms: Sequence[int] = (),
    spans: Iterable[tuple[float, float]] = (),
    look: Look = "light",
    width_px: int = 760,
) -> alt.VConcatChart:
    """Draw a recording above its score.

    Args:
        recording: The recording.
        rows: Its rows, with `at` (ms), `value`, `score`, `expected`, `lower` and `upper`.
        alerts_ms: Times at which alerts open.
        spans: Labelled spans of time, first to last second.
        look: Colours for light or dark.
        width_px: Width of the panels.
    """
    within = (int(rows["at"][0]), int(rows["at"][-1]))
    bar_ms = (within[1] - within[0]) // 150
    told = [_span(at_ms, at_ms + bar_ms, "alert", within) for at_ms in alerts_ms]
    real = [_span(round(first * 1000), round(last * 1000), "labelled", within) for first, last in spans]
    nothing = pl.lit(None, pl.Float64)
    scores = rows.with_columns(value="score", expected=nothing, lower=pl.lit(0.0), upper=pl.lit(1.0))
    panels = [_Panel(rows, "value", "value", told, real, base=None), _Panel(scores, "score", "score", told, real)]
    return _together(recording.name, panels, look=look, width_px=width_px)


def _together(title: str, panels: Sequence[_Panel], *, look: Look, width_px: int) -> alt.VConcatChart:
    drawn = [_drawn(panel, width_px=width_px) for panel in panels]
    told = alt.TitleParams(title, subtitle=_CAPTION)
    chart: alt.VConcatChart = alt.vconcat(*drawn, spacing=6).resolve_scale(x="shared").properties(title=told)
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


@dataclass(frozen=True, slots=True)
class _Panel:
    """What one panel shows.

    Attributes:
        rows: `at` (ms), `value`, `score`, `expected`, `lower` and `upper`; null where there is none.
        title: Title of the y axis.
        name: Tells it from the other panels of a plot.
        alerts: Spans of alerts.
        incidents: Spans of what really happened.
        base: Where the y axis begins; None for below all that was measured.
    """

    rows: pl.DataFrame
    title: str
    name: str
    alerts: list[dict[str, Any]]
    incidents: list[dict[str, Any]]
    base: float | None = 0.0


def _signal_rows(table: pl.DataFrame, signal: str) -> pl.DataFrame:
    """Take one signal out of windows; what is never too low is normal down to 0."""
    judged = pl.col("upper").is_not_null()
    return table.select(
        pl.col("window_end_ms").alias("at"),
        pl.col(_COLUMNS[signal]).alias("value"),
        *(pl.col(f"{signal}_{what}").alias(what) for what in ("score", "expected", "lower", "upper")),
    ).with_columns(
        pl.when(judged).then(pl.col("lower").fill_null(0.0)).alias("lower"),
        pl.when(judged).then(pl.col("expected")).alias("expected"),
    )


def _drawn(panel: _Panel, *, width_px: int) -> alt.LayerChart:
    """Draw a panel; later layers lie above earlier ones."""
    rows = panel.rows
    scale = alt.Scale(domain=_domain(rows, panel.base), nice=False, zero=False)
    x = alt.X("at:T", title=None, scale=alt.Scale(type="utc"), axis=_time_axis(rows))
    y = alt.Y("value:Q", title=panel.title, scale=scale)
    base = alt.Chart(alt.InlineData(rows.to_dicts()))
    told = [alt.Tooltip("at:T", format="%d %b %H:%M:%S", title="time"), *(f"{n}:Q" for n in rows.columns[1:])]
    band = alt.Y("lower:Q", scale=scale, title=panel.title)
    layers = [
        _spans(panel.incidents).mark_rect(style="incident", clip=True),
        base.mark_area(style="band", clip=True).encode(x, band, y2="upper:Q"),
        base.mark_line(style="expected", clip=True).encode(x, alt.Y("expected:Q", scale=scale)),
        base.mark_line(style="measured", clip=True).encode(x, y),
        base.transform_filter("datum.score >= 1").mark_point(style="anomaly", clip=True).encode(x, y, tooltip=told),
        _spans(panel.alerts).mark_rect(style="alert", clip=True).encode(y=alt.value(0), y2=alt.value(_BAR_PX)),
        base.mark_point(opacity=0, size=60, clip=True).encode(x, y, tooltip=told),
    ]
    drag = alt.selection_interval(bind="scales", encodings=["x"], name=f"drag_{panel.name}")
    drawn = cast("alt.LayerChart", alt.layer(*layers).add_params(drag))
    drawn.width, drawn.height = width_px, _PANEL_PX
    return drawn


def _time_axis(rows: pl.DataFrame) -> alt.Axis:
    long = len(rows) > 0 and rows["at"][-1] - rows["at"][0] > _DAY_MS
    return alt.Axis(format="%d %b %H:%M" if long else "%H:%M", labelOverlap="greedy", tickCount=12)


def _domain(rows: pl.DataFrame, base: float | None) -> list[float]:
    """Choose what the y axis spans: all that was measured, and the band unless its edge is far away."""
    numbers = np.concatenate([rows[name].drop_nulls().drop_nans().to_numpy() for name in ("value", "expected")])
    highest, lowest = (float(numbers.max()), float(numbers.min())) if len(numbers) else (1.0, 0.0)
    foot = lowest if base is None else base
    reach = (highest - foot) or abs(highest) or 1.0
    edges = rows["upper"].drop_nulls().drop_nans().to_numpy()
    usual = float(np.median(edges)) - foot if len(edges) else 0.0
    top = foot + _HEADROOM * max(highest - foot, min(usual, _BAND_SHOWN * reach))
    return [foot - (_HEADROOM - 1) * reach if base is None else foot, top if top > foot else foot + reach]


def _spans(spans: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(spans)).encode(
        alt.X("from:T", scale=alt.Scale(type="utc")), x2="to:T", tooltip="what:N"
    )


def _span(from_ms: int, to_ms: int | None, what: str, within: tuple[int, int]) -> dict[str, Any]:
    """Cut a span to the windows that are drawn."""
    first_ms, last_ms = within
    end_ms = last_ms if to_ms is None else min(to_ms, last_ms)
    return {"from": min(max(from_ms, first_ms), end_ms), "to": end_ms, "what": what}

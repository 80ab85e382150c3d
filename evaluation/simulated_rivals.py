"""What others would have said on the same windows: a fixed threshold, and Grafana's anomaly rules for Prometheus.

The rules are those of https://github.com/grafana/promql-anomaly-detection at commit 7ed6390, `rules/adaptive.yml`,
restated expression by expression and evaluated as Prometheus would: a group of rules every minute, in order, on samples
that are the last closed window of each series. The names of the records stand beside the lines that compute them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from local.demo.matching import Alert
from operators.kernels.episodes.wording import ALERTNAMES
from operators.kernels.frames import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl
    from numpy.typing import NDArray

_MINUTE_MS: Final = 60_000
_MINUTES_A_DAY: Final = 1_440
_THRESHOLD_BY_COVAR: Final = 0.5
_SPARSE_THRESHOLD: Final = 5 / 60
_STDDEV_MULTIPLIER: Final = 2.0
_MARGIN_MULTIPLIER: Final = 0.5
FOR_MINUTES: Final = 5
"""What the published alert waits."""

_FRESH_MINUTES: Final = 2
_LONG_TERM_EVERY_MINUTES: Final = 5
_LONG_TERM_FRESH_MINUTES: Final = 10
_LOOK_BACKS_MINUTES: Final = (7 * _MINUTES_A_DAY - 30, _MINUTES_A_DAY - 30)


@dataclass(frozen=True, slots=True)
class Grid:
    """The windows of a recording as arrays over time and series.

    Attributes:
        end_ms: Shape (t,): window ends, one slide apart.
        service: Service of each series, n.
        endpoint: Endpoint of each series, n.
        value: Shape (3, t, n): P99 in milliseconds, error ratio, requests per second; NaN where there is no window or
            the number is not known.
        errors_per_s: Shape (t, n): errors per second; NaN where there is no window.
    """

    end_ms: NDArray[np.int64]
    service: list[str]
    endpoint: list[str]
    value: NDArray[np.float64]
    errors_per_s: NDArray[np.float64]


def grid_of(table: pl.DataFrame) -> Grid:
    """Lay a table of windows out on its grid."""
    names = table.select("service", "endpoint").unique().sort("service", "endpoint")
    place = {name: row for row, name in enumerate(names.iter_rows())}
    slides = np.unique(table["window_end_ms"].to_numpy())
    slide_ms = int(np.diff(slides).min()) if len(slides) > 1 else _MINUTE_MS
    end_ms = np.arange(slides[0], slides[-1] + 1, slide_ms)
    column = np.array([place[name] for name in table.select("service", "endpoint").iter_rows()])
    row = (table["window_end_ms"].to_numpy() - end_ms[0]) // slide_ms
    seconds = (table["window_end_ms"] - table["window_start_ms"]).to_numpy() / 1000
    measured = (
        table["p99_ms"].to_numpy(),
        table["error_ratio"].to_numpy(),
        table["rate_per_s"].fill_null(0.0).to_numpy(),
        table["errors"].to_numpy() / seconds,
    )
    value = np.full((len(measured), len(end_ms), len(names)), np.nan)
    for signal, numbers in enumerate(measured):
        value[signal, row, column] = numbers
    return Grid(end_ms, names["service"].to_list(), names["endpoint"].to_list(), value[:3], value[3])


# A fixed threshold.


@dataclass(frozen=True, slots=True)
class Thresholds:
    """One number for each signal, the same for all series.

    Attributes:
        latency_ms: P99 above this is an alert.
        errors_ratio: An error ratio above this is an alert.
        traffic_per_s: Fewer requests per second than this are an alert.
        hold_slides: So many windows in a row must be beyond a threshold.
    """

    latency_ms: float
    errors_ratio: float
    traffic_per_s: float
    hold_slides: int = 2


def threshold_alerts(grid: Grid, thresholds: Thresholds, *, quiet_ms: int) -> list[Alert]:
    """Replay a fixed threshold.

    Args:
        grid: The windows.
        thresholds: What is too much.
        quiet_ms: How long an alert is held after its last window, as the flow holds its own.
    """
    beyond = np.stack(
        (
            grid.value[0] > thresholds.latency_ms,
            grid.value[1] > thresholds.errors_ratio,
            grid.value[2] < thresholds.traffic_per_s,
        )
    )
    return [
        alert
        for signal in range(len(SIGNALS))
        for alert in _alerts(grid, signal, grid.end_ms, _held(beyond[signal], thresholds.hold_slides), quiet_ms)
    ]


def candidates(grid: Grid) -> Iterator[tuple[str, float]]:
    """Name the thresholds worth trying on a recording, `(field, value)`: quantiles of what all series show."""
    high = 1 - np.geomspace(2e-1, 1e-4, 40)
    low = np.geomspace(1e-4, 2e-1, 40)
    for field, values, shares in (
        ("latency_ms", grid.value[0], high),
        ("errors_ratio", grid.value[1], high),
        ("traffic_per_s", grid.value[2], low),
    ):
        for value in np.unique(np.nanquantile(values, shares)):
            yield field, float(value)


# Grafana's rules.


def grafana_alerts(grid: Grid, *, for_minutes: int = FOR_MINUTES) -> list[Alert]:
    """Replay the adaptive rules with their published constants.

    Args:
        grid: The windows.
        for_minutes: How long the expression of the alert must hold.

    Returns:
        An alert from the evaluation at which it fires to the first at which it doesn't.
    """
    minute = np.flatnonzero(grid.end_ms % _MINUTE_MS == 0)
    slides_an_hour = max(3_600_000 // int(np.diff(grid.end_ms[:2])[0]), 1)
    alerts: list[Alert] = []
    for signal, raw in enumerate((grid.value[0], grid.errors_per_s, grid.value[2])):
        level = np.where(raw > 0, raw, np.nan)
        if SIGNALS[signal] == "traffic":
            level[_average(raw, slides_an_hour) < _SPARSE_THRESHOLD] = np.nan
        select = level[minute]
        lower, upper = bands(select, grid.end_ms[minute])
        now, lower, upper = (_latest(record, _FRESH_MINUTES) for record in (select, lower, upper))
        firing = _held((now < lower) | (now > upper), for_minutes + 1)
        alerts += _alerts(grid, signal, grid.end_ms[minute], firing, 0)
    return alerts


def bands(select: NDArray[np.float64], end_ms: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute `anomaly:lower_band` and `anomaly:upper_band` of `anomaly:adaptive:select`.

    Args:
        select: Shape (minutes, n): one evaluation a minute; NaN where the record is absent.
        end_ms: Shape (minutes,): when.

    Returns:
        Both of the same shape; NaN where a band is absent.
    """
    average = _average(select, 60)  # anomaly:adaptive:avg_1h
    stddev = _stddev(select, 60)
    filtered = np.where(stddev > average * _THRESHOLD_BY_COVAR, stddev, np.nan)  # anomaly:adaptive:stddev_1h:filtered
    short_term = _average(filtered, 26 * 60) * _STDDEV_MULTIPLIER  # anomaly:adaptive:stddev_st
    margin = average * _MARGIN_MULTIPLIER
    below, above = [average - short_term, average - margin], [average + short_term, average + margin]
    for minutes in _LOOK_BACKS_MINUTES:  # anomaly:adaptive:lower_band_lt and upper_band_lt
        if minutes < len(select):
            width = _shifted(stddev, minutes) * _STDDEV_MULTIPLIER
            evaluated = (end_ms // _MINUTE_MS % _LONG_TERM_EVERY_MINUTES == 0)[:, None]
            for side, band in ((below, -width), (above, width)):
                record = np.where(evaluated, _shifted(average, minutes) + band, np.nan)
                side.append(_latest(record, _LONG_TERM_FRESH_MINUTES))
    lower = np.maximum(np.fmin.reduce(below), 0)
    upper: NDArray[np.float64] = np.fmax.reduce(above)
    return lower, upper


def _average(values: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """`avg_over_time` of a number of rows up to and with each; NaN without any value."""
    total, count = _rolled(np.nan_to_num(values), rows), _rolled(np.isfinite(values).astype(float), rows)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _stddev(values: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """`stddev_over_time`, which is that of a population."""
    known = np.isfinite(values).sum(axis=0)
    centred = values - np.nansum(values, axis=0) / np.maximum(known, 1)  # or squares of large numbers would cancel
    variance = _average(centred**2, rows) - _average(centred, rows) ** 2
    return np.sqrt(np.maximum(variance, 0))


def _rolled(values: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    sums = np.concatenate((np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)))
    first = np.maximum(np.arange(1, len(values) + 1) - rows, 0)
    rolled: NDArray[np.float64] = sums[1:] - sums[first]
    return rolled


def _shifted(values: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """`offset`: the value of so many rows ago."""
    shifted = np.full_like(values, np.nan)
    shifted[rows:] = values[: len(values) - rows]
    return shifted


def _latest(values: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """`last_over_time`: the last value of a number of rows up to and with each."""
    latest = values.copy()
    for back in range(1, rows):
        older = _shifted(values, back)
        latest = np.where(np.isnan(latest), older, latest)
    return latest


# From verdicts on rows to alerts.


def _held(beyond: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    """Keep the rows that are the last of so many in a row."""
    held = _rolled(beyond.astype(float), rows) >= rows
    held[: rows - 1] = False
    kept: NDArray[np.bool_] = held & beyond
    return kept


def _alerts(
    grid: Grid, signal: int, end_ms: NDArray[np.int64], firing: NDArray[np.bool_], quiet_ms: int
) -> Iterator[Alert]:
    """Turn runs of firing rows into alerts; one goes on when the next run begins within the quiet time."""
    for series in np.flatnonzero(firing.any(axis=0)).tolist():
        rows = end_ms[firing[:, series]].tolist()
        for first_ms, last_ms in _episodes(rows, max(quiet_ms, int(end_ms[1] - end_ms[0]))):
            yield Alert(
                alertname=ALERTNAMES[signal],
                service=grid.service[series],
                endpoint=grid.endpoint[series],
                signal=SIGNALS[signal],
                severity="warning",
                fired_ms=first_ms,
                resolved_ms=last_ms + max(quiet_ms, int(end_ms[1] - end_ms[0])),
            )


def _episodes(ends_ms: Sequence[int], gap_ms: int) -> Iterator[tuple[int, int]]:
    first = last = ends_ms[0]
    for end_ms in ends_ms[1:]:
        if end_ms - last > gap_ms:
            yield first, last
            first = end_ms
        last = end_ms
    yield first, last

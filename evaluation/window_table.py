"""Scored windows as a Polars table with the fields of `telemetry.windows`, and tables as frames for the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import polars as pl

from operators.kernels.encode import WindowRecord, window_records
from operators.kernels.frames import SIGNALS, STATES, ScoredFrame, WindowFrame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from operators.kernels.frames import Transition

_INTEGERS: Final = ("window_start_ms", "window_end_ms", "count", "errors")
_TEXTS: Final = ("schema", "service", "endpoint", "state")
SCHEMA: Final = pl.Schema(
    {
        name: pl.String if name in _TEXTS else pl.Int64 if name in _INTEGERS else pl.Float64
        for name in WindowRecord.__struct_fields__
    }
)
"""Columns of a table, those of the records in their order; a number that is not known is null."""

_US_PER_MS: Final = 1000.0


def table_of(frames: Sequence[ScoredFrame]) -> pl.DataFrame:
    """Write frames as a table, one row for each window, in their order."""
    return table_of_records(window_records(frames).values)


def table_of_records(values: Iterable[bytes | None]) -> pl.DataFrame:
    """Read records of `telemetry.windows`, in their order.

    Raises:
        msgspec.DecodeError: A value is no window; fields that this release doesn't know are left out.
    """
    joined = b"\n".join(value for value in values if value is not None)
    rows = msgspec.json.Decoder(dict[str, object]).decode_lines(joined) if joined else []
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA}
    return pl.DataFrame(columns, schema=SCHEMA)


def frames_of(table: pl.DataFrame) -> Iterator[ScoredFrame]:
    """Turn a table back into frames, so that the kernels can look at recorded windows again.

    Args:
        table: Rows in any order, each window once. A series that is absent at a window end begins anew after it.

    Yields:
        One frame for each window end, in order, with the series of that end sorted by name, and what was said of them.
    """
    before: dict[tuple[str, str], int] | None = None
    for part in table.sort("window_end_ms", "service", "endpoint").partition_by("window_end_ms", maintain_order=True):
        service, endpoint = part["service"].to_list(), part["endpoint"].to_list()
        rows = {name: row for row, name in enumerate(zip(service, endpoint, strict=True))}
        carry = None
        if before is None or rows != before:
            carry = np.array([(before or {}).get(name, -1) for name in rows], np.int64)
        before = rows
        count = part["count"].to_numpy()
        mean_us = part["mean_ms"].fill_null(0.0).to_numpy() * _US_PER_MS
        windows = WindowFrame(
            window_start_ms=part["window_start_ms"][0],
            window_end_ms=part["window_end_ms"][0],
            service=service,
            endpoint=endpoint,
            count=count,
            errors=part["errors"].to_numpy(),
            sum_us=np.rint(mean_us * count).astype(np.int64),
            max_us=np.rint(part["max_ms"].fill_null(0.0).to_numpy() * _US_PER_MS).astype(np.int64),
            p50_us=_microseconds(part["p50_ms"]),
            p90_us=_microseconds(part["p90_ms"]),
            p99_us=_microseconds(part["p99_ms"]),
            carry=carry,
        )
        score, expected, lower, upper = (_by_signal(part, what) for what in ("score", "expected", "lower", "upper"))
        state = np.array([STATES.index(name) for name in part["state"]], np.int8)
        yield ScoredFrame(windows, score, expected, lower, upper, state)


def _by_signal(part: pl.DataFrame, what: str) -> NDArray[np.float64]:
    return np.stack([part[f"{signal}_{what}"].fill_null(np.nan).to_numpy() for signal in SIGNALS])


def _microseconds(milliseconds: pl.Series) -> NDArray[np.float64]:
    """Undo the division that a quantile went through on its way to the wire."""
    return milliseconds.fill_null(np.nan).to_numpy() * _US_PER_MS


def alert_table(transitions: Iterable[Transition]) -> pl.DataFrame:
    """Write alert transitions as a table, one row each, with what a person reads first.

    Returns:
        `at` (event time, UTC), `status`, `alertname`, `severity`, `service`, `endpoint`, `score` and `summary`.
    """
    rows = [
        {
            "at": change.window_end_ms,
            "status": change.status,
            "alertname": change.labels["alertname"],
            "severity": change.labels["severity"],
            "service": change.labels["service"],
            "endpoint": change.labels["endpoint"],
            "score": change.score,
            "summary": change.annotations["summary"],
        }
        for change in transitions
    ]
    numbers = {"at": pl.Int64(), "score": pl.Float64()}
    names = ("at", "status", "alertname", "severity", "service", "endpoint", "score", "summary")
    table = pl.DataFrame(rows, schema={name: numbers.get(name, pl.String()) for name in names}, orient="row")
    return table.with_columns(pl.from_epoch("at", "ms").dt.replace_time_zone("UTC"))

"""Scored windows as a Polars table with the fields of `telemetry.windows`, and tables as frames for the kernels."""

from __future__ import annotations

from itertools import pairwise
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
    table = table.sort("window_end_ms", "service", "endpoint")
    start_ms, end_ms = table["window_start_ms"].to_numpy(), table["window_end_ms"].to_numpy()
    services, endpoints = table["service"].to_list(), table["endpoint"].to_list()
    count, errors = table["count"].to_numpy(), table["errors"].to_numpy()
    sum_us = np.rint(table["mean_ms"].fill_null(0.0).to_numpy() * _US_PER_MS * count).astype(np.int64)
    max_us = np.rint(table["max_ms"].fill_null(0.0).to_numpy() * _US_PER_MS).astype(np.int64)
    p50_us, p90_us, p99_us = (_microseconds(table[name]) for name in ("p50_ms", "p90_ms", "p99_ms"))
    score, expected, lower, upper = (_by_signal(table, what) for what in ("score", "expected", "lower", "upper"))
    state = np.array([STATES.index(name) for name in table["state"].to_list()], np.int8)
    before: dict[tuple[str, str], int] | None = None
    # Columns are taken whole and cut here: a table of a day has thousands of ends, and each look into it its price.
    edges = [0, *(np.flatnonzero(np.diff(end_ms)) + 1).tolist(), len(table)] if len(table) else []
    for begin, end in pairwise(edges):
        part = slice(begin, end)
        service, endpoint = services[part], endpoints[part]
        rows = {name: row for row, name in enumerate(zip(service, endpoint, strict=True))}
        carry = None
        if before is None or rows != before:
            carry = np.array([(before or {}).get(name, -1) for name in rows], np.int64)
        before = rows
        windows = WindowFrame(
            window_start_ms=int(start_ms[begin]),
            window_end_ms=int(end_ms[begin]),
            service=service,
            endpoint=endpoint,
            count=count[part],
            errors=errors[part],
            sum_us=sum_us[part],
            max_us=max_us[part],
            p50_us=p50_us[part],
            p90_us=p90_us[part],
            p99_us=p99_us[part],
            carry=carry,
        )
        yield ScoredFrame(
            windows,
            score[:, part].copy(),
            expected[:, part].copy(),
            lower[:, part].copy(),
            upper[:, part].copy(),
            state[part],
        )


def _by_signal(table: pl.DataFrame, what: str) -> NDArray[np.float64]:
    return np.stack([table[f"{signal}_{what}"].fill_null(np.nan).to_numpy() for signal in SIGNALS])


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

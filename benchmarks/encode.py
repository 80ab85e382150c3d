"""What it costs to encode closed windows, beside Polars writing the same rows as NDJSON.

`python -m benchmarks.encode` prints microseconds of CPU a record for frames of several sizes, and the ratio of the two.
"""

from __future__ import annotations

import io
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from operators.kernels.encode import WindowRecord, window_records
from operators.kernels.frames import NORMAL, WARMING, ScoredFrame, WindowFrame

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES: Final = (1, 5, 20, 200, 2_000, 20_000)
ROWS_A_SIZE: Final = 60_000
END_MS: Final = 1_760_000_000_000
LENGTH_MS: Final = 60_000


def scored_frame(rows: int, *, warming: bool) -> ScoredFrame:
    """Make a frame with numbers as long as real ones.

    Args:
        rows: Number of series.
        warming: Whether no series has bands yet.

    Returns:
        The same frame for the same arguments.
    """
    random = np.random.default_rng(rows)
    count = random.integers(1, 500, rows)
    quantiles_us = np.sort(random.lognormal(11, 1, (3, rows)), axis=0)
    windows = WindowFrame(
        window_start_ms=END_MS - LENGTH_MS,
        window_end_ms=END_MS,
        service=[f"service-{row % 50}" for row in range(rows)],
        endpoint=[f"/api/v1/resource/{row}" for row in range(rows)],
        count=count,
        errors=random.integers(0, 3, rows),
        sum_us=count * random.integers(50_000, 90_000, rows),
        max_us=quantiles_us[2].astype(np.int64) + 1_000,
        p50_us=quantiles_us[0],
        p90_us=quantiles_us[1],
        p99_us=quantiles_us[2],
        carry=None,
    )
    if warming:
        unknown = np.full((3, rows), np.nan)
        return ScoredFrame(windows, np.zeros((3, rows)), unknown, unknown, unknown, np.full(rows, WARMING, np.int8))
    expected, lower, upper = random.random((3, 3, rows)) * 100
    lower[:2] = np.nan
    return ScoredFrame(windows, random.random((3, rows)), expected, lower, upper, np.full(rows, NORMAL, np.int8))


def polars_lines(frame: ScoredFrame) -> list[bytes]:
    """Encode values only, without keys and ids, by `polars.DataFrame.write_ndjson`."""
    windows = frame.windows
    rows = len(windows.service)
    measured = [windows.errors / windows.count, windows.count / (LENGTH_MS / 1_000), windows.sum_us / windows.count]
    measured += [windows.max_us / 1_000, windows.p50_us / 1_000, windows.p90_us / 1_000, windows.p99_us / 1_000]
    bands = np.stack([frame.score, frame.expected, frame.lower, frame.upper], axis=1).reshape(12, rows)
    columns = [pl.repeat("window/1", rows, eager=True), windows.service, windows.endpoint]
    columns += [np.full(rows, windows.window_start_ms), np.full(rows, END_MS), windows.count, windows.errors]
    columns += [*measured, *bands, pl.repeat("normal", rows, eager=True)]
    buffer = io.BytesIO()
    pl.DataFrame(dict(zip(WindowRecord.__struct_fields__, columns, strict=True))).write_ndjson(buffer)
    return buffer.getvalue().split(b"\n")


def record_us(encode: Callable[[], object], rows: int) -> float:
    """Time one way to encode.

    Args:
        encode: Encodes a frame.
        rows: Rows of that frame.

    Returns:
        Microseconds of CPU a record in the fastest of several runs.
    """
    best_s = float("inf")
    for _ in range(min(2_000, max(5, ROWS_A_SIZE // rows))):
        start_s = time.process_time()
        encode()
        best_s = min(best_s, time.process_time() - start_s)
    return best_s / rows * 1e6


def main() -> None:
    """Print one line a size."""
    print(f"{'rows':>6} {'records':>10} {'warming':>10} {'polars':>10}   CPU µs a record; records has keys and ids too")
    for rows in SIZES:
        known, warming = scored_frame(rows, warming=False), scored_frame(rows, warming=True)
        ours_us = record_us(partial(window_records, [known]), rows)
        warming_us = record_us(partial(window_records, [warming]), rows)
        polars_us = record_us(partial(polars_lines, known), rows)
        print(f"{rows:>6} {ours_us:>10.2f} {warming_us:>10.2f} {polars_us:>10.2f}   {polars_us / ours_us:.2f}x")


if __name__ == "__main__":
    main()

"""Coarser exponential buckets out of finer ones, and classic buckets out of either.

Two neighbours of one schema are one bucket of the next lower one, so counts stay exact. The bounds of classic buckets
are powers of two of a second, which are bounds in every schema from 0 on: they say exactly what the native ones say.

Source: https://prometheus.io/docs/specs/native_histograms/, schemas and bucket boundaries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.buckets import OFFSET

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.tally_frame import TallyFrame

FINEST_SCHEMA: Final = 6
"""Schema of the buckets of `operators.kernels.buckets`."""

_LOWEST_POWER: Final = -10
_HIGHEST_POWER: Final = 6

CLASSIC_BOUNDS_S: Final = tuple(2.0**power for power in range(_LOWEST_POWER, _HIGHEST_POWER + 1))
"""Upper bounds of the classic buckets but the last, which is infinite: 0.98 ms to 64 s, each twice the one before."""


def coarser(codes: NDArray[np.int64], steps: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Give the bucket codes at a lower schema.

    Args:
        codes: Bucket codes: 0 for the zero bucket, else the index plus `OFFSET`.
        steps: By how much the schema falls, for each or for all.

    Returns:
        Codes of the same form, same shape and order.
    """
    return np.where(codes > 0, ((codes - OFFSET - 1) >> steps) + 1 + OFFSET, 0)


def classic_counts(frame: TallyFrame) -> NDArray[np.int64]:
    """Count the requests of each series that took no longer than each classic bound.

    Args:
        frame: n series.

    Returns:
        Shape (n, bounds + 1), cumulative; the last column is for infinity and equals `count`.
    """
    index = frame.bucket_code - OFFSET
    # The bucket with this index ends at or below the power of two that it is rounded up to.
    power = -((-index) >> frame.schema[frame.bucket_row])
    power = np.where(frame.bucket_code > 0, power, _LOWEST_POWER)
    column = np.clip(power, _LOWEST_POWER, _HIGHEST_POWER + 1) - _LOWEST_POWER
    counts = np.zeros((len(frame.service), len(CLASSIC_BOUNDS_S) + 1), np.int64)
    np.add.at(counts, (frame.bucket_row, column), frame.bucket_count)
    return np.cumsum(counts, axis=1)

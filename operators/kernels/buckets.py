"""Exponential buckets of latency: Prometheus's native-histogram schema 6, in whole microseconds.

Bucket `i` of schema 6 holds the values in `(2**((i - 1) / 64), 2**(i / 64)]` seconds. Counts are integers, so merging
is exact and does not depend on order, and a bucket is 1.09% wide, so its geometric middle is within 0.55% of every
value in it. Here `i` is shifted by `OFFSET` so that codes are small and not negative, and code 0 is the zero bucket.

Source: https://prometheus.io/docs/specs/native_histograms/, schemas and bucket boundaries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_OCTAVE: Final = 64
OFFSET: Final = 1276
"""What is added to a schema-6 index: 1 µs, the smallest value that is not zero, has index -1275."""

MAX_LATENCY_MS: Final = 1e12
"""Largest latency that is counted (31 years): its bucket fits `BUCKET_BITS` and sums of thousands fit an int64."""

BUCKET_BITS: Final = 12
BUCKET_MASK: Final = (1 << BUCKET_BITS) - 1

_US_PER_S: Final = 1e6


def bucket_of(latency_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the bucket code of each latency.

    Args:
        latency_us: Shape (n,), whole microseconds, 0 to 1e15.

    Returns:
        Shape (n,): 0 for 0 µs, else the schema-6 index plus `OFFSET`, below `1 << BUCKET_BITS`.
    """
    octaves = np.log2(np.maximum(latency_us, 1) / _US_PER_S)
    codes = np.ceil(octaves * PER_OCTAVE).astype(np.int64) + OFFSET
    return np.where(latency_us > 0, codes, 0)


def middle_us(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the value that stands for each bucket.

    Args:
        codes: Bucket codes, any shape.

    Returns:
        The geometric middle of each bucket in microseconds, same shape; 0 for the zero bucket.
    """
    middles = np.exp2((codes - (OFFSET + 0.5)) / PER_OCTAVE) * _US_PER_S
    return np.where(codes > 0, middles, 0.0)

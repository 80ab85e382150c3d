"""Native histograms of a frame, encoded a column at a time.

Source: https://prometheus.io/docs/specs/native_histograms/.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from operators.kernels.buckets import OFFSET
from sinks.remote_write_wire import field, signed_varints, span, varint, zigzag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.tally_frame import TallyFrame

_ZERO_THRESHOLD: Final = b"\x29" + struct.pack("<d", 2.0**-128)
_POSITIVE_DELTAS: Final = 0x62


class NativeBodies:
    """The native histogram of each row of a frame, without its time."""

    def __init__(self, frame: TallyFrame) -> None:
        """Encode the buckets of all rows."""
        n = len(frame.service)
        zero = frame.bucket_code == 0
        row_of, index, counts = frame.bucket_row[~zero], frame.bucket_code[~zero] - OFFSET, frame.bucket_count[~zero]
        zeros = np.zeros(n, np.int64)
        zeros[frame.bucket_row[zero]] = frame.bucket_count[zero]
        begins = np.ones(len(row_of), np.bool_)
        begins[1:] = row_of[1:] != row_of[:-1]
        before = np.zeros(len(counts), np.int64)
        before[1:] = np.where(begins[1:], 0, counts[:-1])
        self._deltas, position = signed_varints(counts - before)
        self._delta_at = position[np.searchsorted(row_of, np.arange(n + 1))].tolist()
        self._spans, span_rows = _spans(row_of, index, begins)
        self._span_at = np.searchsorted(span_rows, np.arange(n + 1)).tolist()
        self._heads = list(
            zip(frame.count.tolist(), frame.sum_s.tolist(), frame.schema.tolist(), zeros.tolist(), strict=True)
        )

    def of(self, row: int) -> bytes:
        """Give the histogram of a row."""
        spans = b"".join(self._spans[self._span_at[row] : self._span_at[row + 1]])
        deltas = self._deltas[self._delta_at[row] : self._delta_at[row + 1]]
        return native_head(*self._heads[row]) + spans + (field(_POSITIVE_DELTAS, deltas) if deltas else b"")


def native_head(count: int, sum_s: float, schema: int, zeros: int) -> bytes:
    """Encode what a native histogram has besides its buckets.

    Args:
        count: Observations.
        sum_s: Their sum.
        schema: Resolution of the buckets.
        zeros: Observations in the zero bucket.
    """
    return b"".join(
        [
            b"\x08" + varint(count),
            b"\x19" + struct.pack("<d", sum_s),
            b"\x20" + varint(zigzag(schema)),
            _ZERO_THRESHOLD,
            b"\x30" + varint(zeros),
        ]
    )


def _spans(
    row_of: NDArray[np.int64], index: NDArray[np.int64], begins: NDArray[np.bool_]
) -> tuple[list[bytes], NDArray[np.int64]]:
    """Encode the runs of neighbouring buckets, and tell the row of each."""
    new = begins.copy()
    new[1:] |= index[1:] != index[:-1] + 1
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=len(index))
    # The first run of a row is told by its index, a later one by its distance from the end of the one before.
    origin = np.zeros(len(starts), np.int64)
    origin[1:] = np.where(begins[starts[1:]], 0, index[starts[1:] - 1] + 1)
    offsets = index[starts] - origin
    return [span(*one) for one in zip(offsets.tolist(), lengths.tolist(), strict=True)], row_of[starts]

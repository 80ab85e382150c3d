"""Frames of one pane as requests of remote write, in the order in which they are to be sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from sinks.remote_write_dialects import DIALECTS, Dialect, Version
from sinks.remote_write_encoding import FrameEncoder, Weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from operators.kernels.tally_frame import TallyFrame

_Rows: TypeAlias = list[tuple[FrameEncoder, list[int]]]
_Encode: TypeAlias = Callable[[FrameEncoder, list[int], Dialect], list[bytes]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded series that go out as one request, and may be parted into several.

    Attributes:
        version: Of the protocol.
        head: What every request with any of these series begins with.
        entries: The series, each with one sample.
        native: Whether the samples are native histograms.
    """

    version: Version
    head: bytes
    entries: Sequence[bytes]
    native: bool

    def body(self) -> bytes:
        """Put the request together, not yet compressed."""
        return self.head + b"".join(self.entries)

    def halves(self) -> tuple[Batch, Batch]:
        """Part the series in two."""
        middle = len(self.entries) // 2
        return replace(self, entries=self.entries[:middle]), replace(self, entries=self.entries[middle:])

    def only(self, number: int) -> Batch:
        """Keep one series."""
        return replace(self, entries=self.entries[number : number + 1])


def batches(frames: Iterable[TallyFrame], version: Version, *, max_samples: int, native: bool) -> Iterator[Batch]:
    """Encode frames of one pane.

    Args:
        frames: Frames with the same pane end, of different shards.
        version: Of the protocol.
        max_samples: Samples in a request; the last service and endpoint in it may make it a few more.
        native: Whether native histograms are written too; they go in requests of their own, so that a receiver that
            refuses them still takes the rest.

    Yields:
        Requests. No request has two samples of a series, and they are in the order of time for each.
    """
    encoders = [FrameEncoder(frame) for frame in frames]
    for encode, weigh, is_native in _PLAN:
        if is_native and not native:
            continue
        for rows in _chunks([(encoder, weigh(encoder)) for encoder in encoders], max_samples):
            dialect = DIALECTS[version]()
            entries = [entry for encoder, of_frame in rows for entry in encode(encoder, of_frame, dialect)]
            yield Batch(version, dialect.head(), entries, is_native)


def _chunks(weighed: Iterable[tuple[FrameEncoder, Weights]], most: int) -> Iterator[_Rows]:
    """Part rows into runs that have about as many samples as a request may have; no run is empty."""
    chunk: _Rows = []
    weight = 0
    for encoder, weights in weighed:
        begin = 0
        rows = [row for row, _ in weights]
        for position, (_, heavy) in enumerate(weights, 1):
            weight += heavy
            if weight >= most:
                yield [*chunk, (encoder, rows[begin:position])]
                chunk, weight, begin = [], 0, position
        if begin < len(rows):
            chunk.append((encoder, rows[begin:]))
    if chunk:
        yield chunk


_PLAN: Final[tuple[tuple[_Encode, Callable[[FrameEncoder], Weights], bool], ...]] = (
    (FrameEncoder.zeros, FrameEncoder.born, False),
    (FrameEncoder.native_zeros, FrameEncoder.born_natives, True),
    (FrameEncoder.values, FrameEncoder.rows, False),
    (FrameEncoder.native_values, FrameEncoder.natives, True),
    (FrameEncoder.stale_markers, FrameEncoder.ended, False),
    (FrameEncoder.native_stale_markers, FrameEncoder.ended_natives, True),
)
"""What is encoded, of which rows, and whether it is native histograms."""

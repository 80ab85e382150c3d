"""The samples of a frame as series of remote write.

A sample has the end of its pane as its time, and a value that counts since its series began. A series begins with a
sample of 0 at the start of its first pane, so that an increase begins with its first request, and ends with a stale
marker. That one is a millisecond before the end of the pane: a series that comes back in the next pane begins there.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from operators.kernels.resolution import classic_counts
from sinks.remote_write_dialects import COUNTER, HISTOGRAM
from sinks.remote_write_native import NativeBodies, native_head
from sinks.remote_write_wire import field, size_of, varint
from sinks.tally_exposition import DURATION, DURATION_HELP, LE, REQUESTS, REQUESTS_HELP, classic_bucket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from operators.kernels.tally_frame import Exemplar, TallyFrame
    from sinks.remote_write_dialects import Dialect

STALE_NAN: Final = struct.pack("<Q", 0x7FF0000000000002)
"""The value that tells Prometheus that a series has ended."""

SAMPLES_OF_HISTOGRAM: Final = len(LE) + 2
"""Samples of the classic histogram of one series."""

Weights: TypeAlias = list[tuple[int, int]]
"""Rows, each with the number of samples that it counts for."""

_NATIVE_WEIGHT: Final = 5
_NAME: Final = "__name__"
_ZERO: Final = struct.pack("<d", 0.0)
_SAMPLE_START: Final = b"\x18"
_HISTOGRAM_START: Final = b"\x88\x01"
_US_PER_S: Final = 1e6
_VALUE_BYTES: Final = 8


class FrameEncoder:
    """Encodes any rows of a frame, in any dialect.

    What is asked for a selection of rows gives each with its weight: as how many samples it counts for a request.
    """

    def __init__(self, frame: TallyFrame) -> None:
        """Look at a frame."""
        self._frame = frame
        n = len(frame.service)
        self._first_code = np.searchsorted(frame.code_row, np.arange(n + 1)).tolist()
        self._statuses = frame.code_status.tolist()
        self._code_values = frame.code_count.astype("<f8").tobytes()
        self._code_started_ms = frame.code_started_ms.tolist()
        self._started_ms = frame.started_ms.tolist()
        self._exemplars = {one.row: one for one in frame.exemplars}

    def rows(self) -> Weights:
        """Select all rows."""
        codes = np.bincount(self._frame.code_row, minlength=len(self._started_ms))
        return list(enumerate((codes + SAMPLES_OF_HISTOGRAM).tolist()))

    def natives(self) -> Weights:
        """Select all rows, for native histograms."""
        return [(row, _NATIVE_WEIGHT) for row in range(len(self._started_ms))]

    def born(self) -> Weights:
        """Select the rows that have anything that began with this pane."""
        frame = self._frame
        began = np.unique(frame.code_row[frame.code_started_ms == frame.pane_start_ms])
        return [(row, SAMPLES_OF_HISTOGRAM) for row in began.tolist()]

    def born_natives(self) -> Weights:
        """Select the rows that began with this pane, for native histograms."""
        frame = self._frame
        return [(row, _NATIVE_WEIGHT) for row in np.flatnonzero(frame.started_ms == frame.pane_start_ms).tolist()]

    def ended(self) -> Weights:
        """Select the series that ended, by their position."""
        return [(at, SAMPLES_OF_HISTOGRAM + len(one.statuses)) for at, one in enumerate(self._frame.ended)]

    def ended_natives(self) -> Weights:
        """Select the series that ended, for native histograms."""
        return [(at, _NATIVE_WEIGHT) for at in range(len(self._frame.ended))]

    def values(self, rows: Iterable[int], dialect: Dialect) -> list[bytes]:
        """Encode counters and classic histograms at the end of the pane."""
        frame, series = self._frame, _Series(dialect)
        raw, width = self._histogram_values, SAMPLES_OF_HISTOGRAM * _VALUE_BYTES
        out: list[bytes] = []
        for row in rows:
            series.of(frame.service[row], frame.endpoint[row])
            for at in range(self._first_code[row], self._first_code[row + 1]):
                value = self._code_values[at * _VALUE_BYTES : (at + 1) * _VALUE_BYTES]
                out.append(series.counter(self._statuses[at], value, frame.pane_end_ms, self._code_started_ms[at]))
            cut = raw[row * width : (row + 1) * width]
            out += series.histogram(cut, frame.pane_end_ms, self._started_ms[row], self._exemplars.get(row))
        return out

    def zeros(self, rows: Iterable[int], dialect: Dialect) -> list[bytes]:
        """Encode the zeros with which counters and classic histograms begin at the start of the pane."""
        frame, series = self._frame, _Series(dialect)
        out: list[bytes] = []
        start_ms = frame.pane_start_ms
        for row in rows:
            series.of(frame.service[row], frame.endpoint[row])
            codes = range(self._first_code[row], self._first_code[row + 1])
            new = [self._statuses[at] for at in codes if self._code_started_ms[at] == start_ms]
            out += [series.counter(status, _ZERO, start_ms, start_ms) for status in new]
            if self._started_ms[row] == start_ms:
                out += series.histogram(_ZERO * SAMPLES_OF_HISTOGRAM, start_ms, start_ms, None)
        return out

    def stale_markers(self, numbers: Iterable[int], dialect: Dialect) -> list[bytes]:
        """Encode the ends of counters and classic histograms."""
        series, at_ms = _Series(dialect), self._frame.pane_end_ms - 1
        out: list[bytes] = []
        for one in (self._frame.ended[number] for number in numbers):
            series.of(one.service, one.endpoint)
            out += [series.counter(status, STALE_NAN, at_ms, at_ms) for status in one.statuses]
            out += series.histogram(STALE_NAN * SAMPLES_OF_HISTOGRAM, at_ms, at_ms, None)
        return out

    def native_values(self, rows: Iterable[int], dialect: Dialect) -> list[bytes]:
        """Encode native histograms at the end of the pane."""
        frame, series, natives = self._frame, _Series(dialect), self._natives
        out = []
        for row in rows:
            series.of(frame.service[row], frame.endpoint[row])
            exemplar = self._exemplars.get(row)
            out.append(series.native(natives.of(row), frame.pane_end_ms, self._started_ms[row], exemplar))
        return out

    def native_zeros(self, rows: Iterable[int], dialect: Dialect) -> list[bytes]:
        """Encode the empty native histograms with which series begin."""
        frame, series, start_ms = self._frame, _Series(dialect), self._frame.pane_start_ms
        out = []
        for row in rows:
            series.of(frame.service[row], frame.endpoint[row])
            out.append(series.native(native_head(0, 0.0, int(frame.schema[row]), 0), start_ms, start_ms, None))
        return out

    def native_stale_markers(self, numbers: Iterable[int], dialect: Dialect) -> list[bytes]:
        """Encode the ends of native histograms: their sum is what marks them."""
        series, at_ms = _Series(dialect), self._frame.pane_end_ms - 1
        out = []
        for one in (self._frame.ended[number] for number in numbers):
            series.of(one.service, one.endpoint)
            out.append(series.native(b"\x08\x00\x19" + STALE_NAN + b"\x20\x00", at_ms, at_ms, None))
        return out

    @cached_property
    def _histogram_values(self) -> bytes:
        """The values of all classic histograms, row by row."""
        frame = self._frame
        cells = [classic_counts(frame).astype("<f8"), frame.sum_s[:, None], frame.count[:, None]]
        return np.concatenate(cells, axis=1).astype("<f8").tobytes()

    @cached_property
    def _natives(self) -> NativeBodies:
        return NativeBodies(self._frame)


class _Series:
    """Writes the series of one service and endpoint after the other."""

    def __init__(self, dialect: Dialect) -> None:
        label = dialect.label
        self._dialect = dialect
        self._total = label(_NAME, f"{REQUESTS}_total")
        self._duration = label(_NAME, DURATION)
        bucket = label(_NAME, f"{DURATION}_bucket")
        self._histogram = [
            *((bucket, label("le", le)) for le in LE),
            (label(_NAME, f"{DURATION}_sum"), b""),
            (label(_NAME, f"{DURATION}_count"), b""),
        ]
        self._endpoint = self._service = b""

    def of(self, service: str, endpoint: str) -> None:
        """Go on to another series."""
        # A label without a value is no label.
        self._endpoint = self._dialect.label("endpoint", endpoint) if endpoint else b""
        self._service = self._dialect.label("service", service)

    def counter(self, status: int, value: bytes, at_ms: int, started_ms: int) -> bytes:
        """Write one sample of the counter."""
        dialect = self._dialect
        labels = dialect.labels(self._total + dialect.label("code", str(status)) + self._endpoint + self._service)
        tail = b"\x10" + varint(at_ms) + dialect.start(_SAMPLE_START, started_ms)
        sample = b"\x09" + value + tail
        return self._whole(labels, field(0x12, sample) + dialect.about(COUNTER, REQUESTS_HELP, started_ms))

    def histogram(self, values: bytes, at_ms: int, started_ms: int, exemplar: Exemplar | None) -> list[bytes]:
        """Write the samples of the classic histogram; the exemplar goes with its bucket."""
        dialect, endpoint, service = self._dialect, self._endpoint, self._service
        tail = b"\x10" + varint(at_ms) + dialect.start(_SAMPLE_START, started_ms)
        head = b"\x12" + size_of(1 + _VALUE_BYTES + len(tail)) + b"\x09"
        tail += dialect.about(HISTOGRAM, DURATION_HELP, started_ms)
        extra = len(head) + _VALUE_BYTES + len(tail)
        tag, wrap = dialect.series_tag, dialect.labels
        traced = -1 if exemplar is None else classic_bucket(exemplar.latency_us)
        out = []
        for number, (name, le) in enumerate(self._histogram):
            labels = wrap(name + endpoint + le + service)
            value = values[number * _VALUE_BYTES : (number + 1) * _VALUE_BYTES]
            if number == traced and exemplar is not None:
                out.append(self._whole(labels, head + value + tail + self._exemplar(exemplar)))
            else:
                out.append(tag + size_of(len(labels) + extra) + labels + head + value + tail)
        return out

    def native(self, body: bytes, at_ms: int, started_ms: int, exemplar: Exemplar | None) -> bytes:
        """Write one native histogram."""
        dialect = self._dialect
        body += b"\x78" + varint(at_ms) + dialect.start(_HISTOGRAM_START, started_ms)
        rest = field(dialect.histogram_tag, body) + dialect.about(HISTOGRAM, DURATION_HELP, started_ms)
        if exemplar is not None:
            rest += self._exemplar(exemplar)
        return self._whole(dialect.labels(self._duration + self._endpoint + self._service), rest)

    def _exemplar(self, exemplar: Exemplar) -> bytes:
        labels = self._dialect.labels(self._dialect.label("trace_id", exemplar.trace_id))
        value = struct.pack("<d", exemplar.latency_us / _US_PER_S)
        return field(self._dialect.exemplar_tag, labels + b"\x11" + value + b"\x18" + varint(exemplar.timestamp_ms))

    def _whole(self, labels: bytes, rest: bytes) -> bytes:
        return self._dialect.series_tag + size_of(len(labels) + len(rest)) + labels + rest

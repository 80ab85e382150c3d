"""Reads remote write as a receiver would, from the text of the specifications, sharing no code with what writes it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

Fields = dict[int, list[Any]]


@dataclass
class ReadSeries:
    """One series of a request.

    Attributes:
        labels: Names and values as they stand in the request.
        samples: (time, value bytes, start or None).
        histograms: Native histograms.
        exemplars: (labels, value, time).
        kind: Type and help of 2.0.
        created_ms: The start as older receivers of 2.0 read it.
    """

    labels: list[tuple[str, str]]
    samples: list[tuple[int, bytes, int | None]] = field(default_factory=list)
    histograms: list[dict[str, Any]] = field(default_factory=list)
    exemplars: list[tuple[dict[str, str], float, int]] = field(default_factory=list)
    kind: tuple[int, str] | None = None
    created_ms: int | None = None

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """What identifies the series."""
        return tuple(self.labels)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def read_fields(data: bytes) -> Fields:
    """Split a message into its fields, in order."""
    found: Fields = {}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = read_varint(data, at)
        elif kind == 1:
            value, at = data[at : at + 8], at + 8
        else:
            assert kind == 2
            size, at = read_varint(data, at)
            value, at = data[at : at + size], at + size
            assert len(value) == size
        found.setdefault(number, []).append(value)
    return found


def read_packed(data: bytes) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = read_varint(data, at)
        values.append(value)
    return values


def signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def real(data: bytes) -> float:
    value: float = struct.unpack("<d", data)[0]
    return value


def read_request(version: str, body: bytes) -> list[ReadSeries]:
    """Read a request that is not compressed."""
    return _read_1(body) if version == "1.0" else _read_2(body)


def _read_1(body: bytes) -> list[ReadSeries]:
    message = read_fields(body)
    assert set(message) <= {1}
    series = []
    for one in map(read_fields, message.get(1, [])):
        assert set(one) <= {1, 2, 3, 4}
        found = ReadSeries([_pair(label) for label in one[1]])
        found.samples = [_sample(sample) for sample in one.get(2, [])]
        found.exemplars = [
            (dict(map(_pair, said[1])), real(said[2][0]), said[3][0]) for said in map(read_fields, one.get(3, []))
        ]
        found.histograms = [_histogram(histogram) for histogram in one.get(4, [])]
        series.append(found)
    return series


def _read_2(body: bytes) -> list[ReadSeries]:
    message = read_fields(body)
    assert set(message) <= {4, 5}
    symbols = [symbol.decode() for symbol in message[4]]
    assert symbols[0] == ""
    assert len(set(symbols)) == len(symbols)

    def labels(packed: bytes) -> list[tuple[str, str]]:
        texts = [symbols[reference] for reference in read_packed(packed)]
        return list(zip(texts[::2], texts[1::2], strict=True))

    series = []
    for one in map(read_fields, message.get(5, [])):
        assert set(one) <= {1, 2, 3, 4, 5, 6}
        about = read_fields(one[5][0])
        found = ReadSeries(labels(one[1][0]), kind=(about[1][0], symbols[about[3][0]]), created_ms=one[6][0])
        found.samples = [_sample(sample) for sample in one.get(2, [])]
        found.histograms = [_histogram(histogram) for histogram in one.get(3, [])]
        found.exemplars = [
            (dict(labels(said[1][0])), real(said[2][0]), said[3][0]) for said in map(read_fields, one.get(4, []))
        ]
        assert bool(found.samples) != bool(found.histograms)
        series.append(found)
    return series


def _pair(label: bytes) -> tuple[str, str]:
    said = read_fields(label)
    return said[1][0].decode(), said[2][0].decode()


def _sample(data: bytes) -> tuple[int, bytes, int | None]:
    said = read_fields(data)
    return said[2][0], said[1][0], said.get(3, [None])[0]


def _histogram(data: bytes) -> dict[str, Any]:
    said = read_fields(data)
    assert set(said) <= {1, 3, 4, 5, 6, 11, 12, 15, 17}
    counts: dict[int, int] = {}
    deltas = [signed(value) for value in read_packed(said.get(12, [b""])[0])]
    index = count = 0
    for one in map(read_fields, said.get(11, [])):
        index += signed(one[1][0])
        for _ in range(one[2][0]):
            count += deltas.pop(0)
            counts[index] = count
            index += 1
    assert deltas == []
    return {
        "count": said[1][0],
        "sum": said[3][0],
        "schema": signed(said[4][0]),
        "zeros": said.get(6, [0])[0],
        "counts": counts,
        "at_ms": said[15][0],
        "start_ms": said.get(17, [None])[0],
    }

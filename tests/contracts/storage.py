"""What lies in a recovery directory, read without any class of ours."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import zstandard

from operators.kernels.codec import pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_HEAD_BYTES = 6


class Envelope(NamedTuple):
    """A snapshot of one state: how it is laid out, and what is in it."""

    kind: str
    version: int
    values: Mapping[str, Any]
    arrays: Mapping[str, tuple[str, list[int], bytes]]


def envelope(data: bytes) -> Envelope:
    """Open a snapshot."""
    body = zstandard.ZstdDecompressor().decompress(data[_HEAD_BYTES:])
    return Envelope(*msgspec.msgpack.decode(body))


def of_next_release(data: bytes) -> bytes:
    """Give a snapshot the version that a release to come would write."""
    found = envelope(data)
    return pack(found.kind, found.version + 1, found.values, {})


def snapshots(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the step and the bytes of every snapshot that Bytewax holds."""
    for path in sorted(directory.glob("*.sqlite3")):
        with closing(sqlite3.connect(path)) as db:
            for step_id, pickled in db.execute("SELECT step_id, ser_change FROM snaps WHERE ser_change IS NOT NULL"):
                yield step_id, pickle.loads(pickled)


def layouts(data: bytes) -> Iterator[tuple[str, int, str]]:
    """Yield kind, version and fields of a state, and of the states in it."""
    found = envelope(data)
    arrays = (f"{name}:{dtype.lstrip('<>|=')}[{len(shape)}]" for name, (dtype, _, shape, _) in found.arrays.items())
    yield found.kind, found.version, " ".join(sorted([*found.values, *arrays]))
    for value in found.values.values():
        if isinstance(value, bytes) and value[:2] == data[:2]:
            yield from layouts(value)

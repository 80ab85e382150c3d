"""Versioned bytes for operator state: named NumPy arrays and plain values, never a pickled object.

Bytewax pickles a snapshot later than it asks for it and loads classes by name, so state leaves as bytes that were
fixed at the moment of the snapshot and that need no class of ours to be read again.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_MAGIC: Final = b"TM"
_LEVEL: Final = 1
_SUM_BYTES: Final = 4
_HEAD_BYTES: Final = len(_MAGIC) + _SUM_BYTES


class StateError(RuntimeError):
    """A snapshot that this version of Tailmark can't read: unknown layout, other kind of state, or damaged bytes."""


class _Envelope(msgspec.Struct, array_like=True):
    kind: str
    version: int
    values: dict[str, Any]
    arrays: dict[str, _Array]


class _Array(msgspec.Struct, array_like=True):
    dtype: str
    stored: str
    shape: list[int]
    data: bytes


_DECODER: Final = msgspec.msgpack.Decoder(_Envelope)


def pack(kind: str, version: int, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Encode state as compressed, self-describing bytes.

    Args:
        kind: Name of the state, checked when it is read back.
        version: Layout of `values` and `arrays`; raise it with every change and read the older one.
        values: Plain data that MessagePack can carry.
        arrays: Numeric or boolean arrays of any shape.

    Returns:
        Bytes for `unpack`.
    """
    columns = {name: _stored(array) for name, array in arrays.items()}
    body = msgspec.msgpack.encode(_Envelope(kind, version, dict(values), columns))
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(body)
    return _MAGIC + _sum_of(packed) + packed


def _stored(array: NDArray[Any]) -> _Array:
    """Give whole numbers the smallest type that holds all of them: to compress eight times the bytes takes longer."""
    narrow = array
    if array.size and array.dtype.kind == "i":
        # The type of -n - 1 holds n as well.
        narrow = array.astype(np.min_scalar_type(min(int(array.min()), -int(array.max()) - 1)))
    return _Array(array.dtype.str, narrow.dtype.str, list(array.shape), np.ascontiguousarray(narrow).tobytes())


def _sum_of(packed: bytes) -> bytes:
    """Give the checksum of compressed bytes: it is looked at first, as a damaged frame may ask for any memory."""
    return zlib.crc32(packed).to_bytes(_SUM_BYTES, "big")


def unpack(kind: str, versions: tuple[int, ...], data: bytes) -> tuple[int, dict[str, Any], dict[str, NDArray[Any]]]:
    """Decode what `pack` wrote.

    Args:
        kind: The kind of state the caller expects.
        versions: The layouts the caller can read.
        data: Bytes of a snapshot.

    Returns:
        The layout found, the plain values, and the arrays as writable copies.

    Raises:
        StateError: The bytes are damaged, of another kind, or of a layout not in `versions`.
    """
    try:
        if data[: len(_MAGIC)] != _MAGIC:
            msg = f"state of `{kind}` does not start with {_MAGIC!r}, so it was not written by tailmark"
            raise StateError(msg)
        packed = data[_HEAD_BYTES:]
        if data[len(_MAGIC) : _HEAD_BYTES] != _sum_of(packed):
            msg = f"state of `{kind}` is damaged and can't be resumed from: its checksum is wrong"
            raise StateError(msg)
        envelope = _DECODER.decode(zstandard.ZstdDecompressor().decompress(packed))
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        msg = f"state of `{kind}` is damaged and can't be resumed from: {error}"
        raise StateError(msg) from error
    if envelope.kind != kind or envelope.version not in versions:
        readable = ", ".join(map(str, versions))
        msg = (
            f"state is `{envelope.kind}` version {envelope.version}, but this release reads `{kind}` version {readable}"
        )
        raise StateError(msg)
    arrays = {
        name: np.frombuffer(array.data, np.dtype(array.stored)).reshape(array.shape).astype(array.dtype)
        for name, array in envelope.arrays.items()
    }
    return envelope.version, envelope.values, arrays

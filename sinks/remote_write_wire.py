"""The little of protobuf that remote write needs: numbers of variable length, and columns of them at once.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MORE: Final = 0x80
_LOW_BITS: Final = 7
_LOW_MASK: Final = 0x7F
_MOST_BYTES: Final = 10
_SIGN_BIT: Final = 63


def varint(value: int) -> bytes:
    """Encode a number that is not negative, below 2**64."""
    if value < _MORE:
        return _ONE_BYTE[value]
    parts = bytearray()
    while value >= _MORE:
        parts.append(value & _LOW_MASK | _MORE)
        value >>= _LOW_BITS
    parts.append(value)
    return bytes(parts)


_ONE_BYTE: Final = tuple(bytes([value]) for value in range(_MORE))

SIZES: Final = tuple(varint(size) for size in range(4096))
"""Sizes that are frequent, encoded once."""


def size_of(length: int) -> bytes:
    """Encode the size of what follows."""
    return SIZES[length] if length < len(SIZES) else varint(length)


def zigzag(value: int) -> int:
    """Give the unsigned number that stands for a signed one."""
    return (value << 1) ^ (value >> _SIGN_BIT)


def field(tag: int, body: bytes) -> bytes:
    """Encode a field of bytes, text or message.

    Args:
        tag: Its number and wire type as one byte.
        body: Its content.
    """
    return bytes((tag,)) + size_of(len(body)) + body


@lru_cache(maxsize=1 << 16)
def span(offset: int, length: int) -> bytes:
    """Encode a `BucketSpan` as a field `positive_spans` of a histogram: few of them are ever different."""
    return field(0x5A, b"\x08" + varint(zigzag(offset)) + b"\x10" + varint(length))


def signed_varints(values: NDArray[np.int64]) -> tuple[bytes, NDArray[np.int64]]:
    """Encode a column of signed numbers.

    Args:
        values: Shape (n,).

    Returns:
        All of them one behind the other, and the n + 1 positions at which each begins and the last ends.
    """
    unsigned = ((values << 1) ^ (values >> _SIGN_BIT)).view(np.uint64)
    length = np.ones(len(values), np.int64)
    for number in range(1, _MOST_BYTES):
        length += unsigned >= np.uint64(1) << np.uint64(_LOW_BITS * number)
    position = np.concatenate([[0], np.cumsum(length)])
    out = np.zeros(int(position[-1]), np.uint8)
    rest, at = unsigned, position[:-1]
    while len(rest):
        more = rest >= _MORE
        out[at] = (rest & np.uint64(_LOW_MASK)).astype(np.uint8) | np.where(more, _MORE, 0).astype(np.uint8)
        rest, at = rest[more] >> np.uint64(_LOW_BITS), at[more] + 1
    return out.tobytes(), position

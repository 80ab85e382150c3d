"""State leaves as bytes that tell what they are, and what can't be read is refused, never guessed."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.codec import StateError, pack, unpack

VALUES = {"n": 3, "names": [["a", ""], ["ü", "/x"]], "none": None, "ratio": 0.5, "raw": b"\x00\xff"}
ARRAYS = {
    "counts": np.arange(6, dtype=np.int64).reshape(2, 3),
    "ratios": np.array([0.5, np.nan, np.inf, -0.0]),
    "flags": np.array([True, False]),
    "small": np.array([1, 2], np.int8),
    "empty": np.zeros((4, 0), np.int64),
    "strided": np.arange(10)[::-3],
}
DATA = pack("windows", 2, VALUES, ARRAYS)


def test_what_was_packed_comes_back_bit_for_bit() -> None:
    version, values, arrays = unpack("windows", (1, 2), DATA)
    assert (version, values) == (2, VALUES)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes(), name


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1)))
def test_whole_numbers_of_any_size_come_back(numbers: list[int]) -> None:
    array = np.array(numbers, np.int64)
    _, _, arrays = unpack("windows", (1,), pack("windows", 1, {}, {"numbers": array}))
    assert arrays["numbers"].dtype == array.dtype
    assert arrays["numbers"].tolist() == numbers


def test_small_numbers_take_no_more_bytes_than_they_need() -> None:
    noise = np.random.default_rng(1).integers(-128, 128, 10_000)
    assert len(pack("windows", 1, {}, {"noise": noise})) < 10_500


def test_arrays_come_back_writable_and_of_their_own() -> None:
    _, _, first = unpack("windows", (2,), DATA)
    first["counts"][:] = -1
    _, _, second = unpack("windows", (2,), DATA)
    assert second["counts"].tolist() == ARRAYS["counts"].tolist()


def test_same_state_gives_the_same_bytes() -> None:
    assert pack("windows", 2, VALUES, ARRAYS) == DATA


def test_state_of_an_unknown_version_is_refused_with_both_versions() -> None:
    with pytest.raises(StateError, match=r"`windows` version 2, but this release reads `windows` version 1, 3"):
        unpack("windows", (1, 3), DATA)


def test_state_of_another_kind_is_refused_with_both_kinds() -> None:
    with pytest.raises(StateError, match=r"`windows` version 2, but this release reads `scores`"):
        unpack("scores", (2,), DATA)


@pytest.mark.parametrize("data", [b"", b"T", b"TM", b"{}", b"\x80\x04", pickle.dumps({"a": 1})])
def test_bytes_of_somebody_else_are_refused(data: bytes) -> None:
    with pytest.raises(StateError, match="`windows`"):
        unpack("windows", (2,), data)


def test_state_that_was_cut_off_is_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(StateError):
            unpack("windows", (2,), DATA[:length])


def test_state_with_something_behind_it_is_refused() -> None:
    with pytest.raises(StateError, match="checksum"):
        unpack("windows", (2,), DATA + b"x")


@pytest.mark.parametrize("flip", [1, 4, 16, 128, 130, 255])
def test_state_with_a_damaged_byte_is_refused_wherever_it_is(flip: int) -> None:
    """A number that is merely wrong would be believed, and a wrong length would be allocated."""
    for at in range(len(DATA)):
        damaged = bytearray(DATA)
        damaged[at] ^= flip
        with pytest.raises(StateError):
            unpack("windows", (2,), bytes(damaged))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_state_error(data: bytes) -> None:
    with pytest.raises(StateError):
        unpack("windows", (2,), DATA[:2] + data)

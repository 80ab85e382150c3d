"""Exponential buckets: Prometheus's schema 6, and the promise of 1% that quantiles rest on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.buckets import BUCKET_BITS, MAX_LATENCY_MS, OFFSET, bucket_of, middle_us

LATENCIES_US = st.integers(1, int(MAX_LATENCY_MS * 1000))


def codes(*latency_us: int) -> list[int]:
    return [int(code) for code in bucket_of(np.array(latency_us, np.int64))]


def test_boundaries_are_those_of_native_histograms() -> None:
    """A bucket holds its upper boundary and not its lower one; index 0 of schema 6 ends at one second."""
    assert codes(1_000_000, 2_000_000, 500_000, 1_000_001) == [OFFSET, OFFSET + 64, OFFSET - 64, OFFSET + 1]


@given(LATENCIES_US)
def test_latency_lies_between_the_boundaries_of_its_bucket(latency_us: int) -> None:
    index = codes(latency_us)[0] - OFFSET
    seconds = latency_us / 1e6
    slack = 1 + 1e-9
    assert 2 ** ((index - 1) / 64) < seconds * slack
    assert seconds < 2 ** (index / 64) * slack


@given(LATENCIES_US)
def test_middle_of_a_bucket_is_within_one_percent_of_everything_in_it(latency_us: int) -> None:
    middle = float(middle_us(np.array(codes(latency_us), np.int64))[0])
    assert middle == pytest.approx(latency_us, rel=0.0055)


@given(st.lists(LATENCIES_US, min_size=2, max_size=20))
def test_order_of_latencies_is_the_order_of_their_buckets(latencies_us: list[int]) -> None:
    assert codes(*sorted(latencies_us)) == sorted(codes(*latencies_us))


def test_zero_has_a_bucket_of_its_own_and_every_other_latency_fits_the_key() -> None:
    lowest, highest = codes(1, int(MAX_LATENCY_MS * 1000))
    assert codes(0) == [0]
    assert 0 < lowest < highest < 1 << BUCKET_BITS
    assert middle_us(np.array([0])).tolist() == [0.0]


def test_buckets_of_nothing_are_nothing() -> None:
    assert bucket_of(np.zeros(0, np.int64)).shape == (0,)


def test_width_of_a_bucket_is_that_of_schema_six() -> None:
    below, above = middle_us(np.array([OFFSET, OFFSET + 1]))
    assert math.isclose(above / below, 2 ** (2**-6))

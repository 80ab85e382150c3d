"""What peers write is compared with what we write."""

from __future__ import annotations

import pytest

from benchmarks.peers import Window, Windows, agreement
from benchmarks.processes import BenchmarkError

END_MS = 1_700_000_060_000
LATER_MS = END_MS + 10_000


def windows(*found: Window) -> Windows:
    return {(window.service, window.endpoint, window.window_end_ms): window for window in found}


def window(endpoint: str = "/pay", end_ms: int = END_MS, *, count: int = 10, p99_ms: float | None = 100.0) -> Window:
    return Window("checkout", endpoint, end_ms, count, 1, p99_ms)


def test_estimates_within_their_tolerance_are_the_same_window() -> None:
    assert agreement(windows(window()), windows(window(p99_ms=102.0)), END_MS) == (1.0, 0)


@pytest.mark.parametrize("other", [window(count=9), window(p99_ms=104.0), window(p99_ms=None), window("/other")])
def test_another_count_or_quantile_or_series_is_a_window_that_differs(other: Window) -> None:
    right, _ = agreement(windows(window(), window("/cart")), windows(other, window("/cart")), END_MS)
    assert right == 0.5


def test_window_that_the_peer_has_not_is_counted_unless_nothing_was_in_it() -> None:
    ours = windows(window(), window("/cart"), window("/quiet", count=0, p99_ms=None))
    assert agreement(ours, windows(window()), END_MS) == (1.0, 1)


def test_windows_that_were_open_at_the_end_are_not_looked_at() -> None:
    ours = windows(window(), window(end_ms=LATER_MS))
    assert agreement(ours, windows(window(), window(end_ms=LATER_MS, count=3)), END_MS) == (1.0, 0)


def test_peer_that_wrote_nothing_agrees_with_nobody() -> None:
    with pytest.raises(BenchmarkError, match="nothing to compare"):
        agreement(windows(window()), {}, END_MS)

"""Detectors that judge by a rule and not by history: a limit, and the burn rate of an error budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.kernels.codec import pack, unpack
from operators.kernels.scoring.protocol import Opinion
from operators.kernels.scoring.signals import ERRORS, JUST_BELOW_ONE, LATENCY, TRAFFIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from operators.kernels.frames import WindowFrame
    from operators.kernels.scoring.protocol import WindowSpan

_LARGEST_SCORE: Final = 100.0
_BUCKETS_OF_SHORT: Final = 10

_BURN: Final = "burn-rate"
_LIMITS: Final = "limits"
_VERSION: Final = 1

DEFAULT_BURN_WINDOWS: Final = ((3_600_000, 300_000, 14.4), (21_600_000, 1_800_000, 6.0))
"""Long window, short window, and burn rate: the two pages of Google's SRE Workbook, chapter 5, for a month's budget."""


class Limits:
    """A fixed limit for each signal; a signal without one is not judged.

    The score is the value over its limit, for the lower limit of traffic the limit over the value: 2 is twice as bad as
    allowed. It needs no warm-up and has no state. Latencies of fewer than `min_count` requests are unknown.
    """

    def __init__(
        self,
        span: WindowSpan,
        state: bytes | None = None,
        *,
        latency_ms: float | None = None,
        errors_ratio: float | None = None,
        traffic_min_per_s: float | None = None,
        traffic_max_per_s: float | None = None,
        min_count: int = 20,
    ) -> None:
        """Set the limits.

        Raises:
            ValueError: There is no limit, or one that is not positive.
            StateError: The state is of something else.
        """
        limits = (latency_ms, errors_ratio, traffic_min_per_s, traffic_max_per_s)
        if all(limit is None for limit in limits) or any(limit is not None and limit <= 0 for limit in limits):
            msg = (
                "a static detector needs a positive `latency_ms`, `errors_ratio`, `traffic_min_per_s` or "
                "`traffic_max_per_s`, or it would judge nothing"
            )
            raise ValueError(msg)
        if state is not None:
            unpack(_LIMITS, (_VERSION,), state)
        self._upper = {LATENCY: latency_ms, ERRORS: errors_ratio, TRAFFIC: traffic_max_per_s}
        self._lowest_per_s = traffic_min_per_s
        self._min_count = min_count
        self._length_s = span.length_ms / 1_000

    def align(self, carry: NDArray[np.int64]) -> None:
        """Keep nothing."""

    def step(self, frame: WindowFrame) -> Opinion:
        """Compare the windows with the limits."""
        count = frame.count
        opinion = Opinion.none(len(count))
        values = (
            np.where(count >= self._min_count, frame.p99_us / 1_000, np.nan),
            np.where(count > 0, frame.errors / np.maximum(count, 1), np.nan),
            count / self._length_s,
        )
        for signal, limit in self._upper.items():
            if limit is not None:
                opinion.upper[signal] = limit
                opinion.score[signal] = np.nan_to_num(_beyond(values[signal] / limit))
        if self._lowest_per_s is not None:
            opinion.lower[TRAFFIC] = self._lowest_per_s
            least = self._lowest_per_s / _LARGEST_SCORE
            below = _beyond(self._lowest_per_s / np.maximum(values[TRAFFIC], least))
            opinion.score[TRAFFIC] = np.fmax(opinion.score[TRAFFIC], below)
        return opinion

    def to_bytes(self) -> bytes:
        """Encode that there is nothing."""
        return pack(_LIMITS, _VERSION, {}, {})


class BurnRate:
    """Multi-window, multi-burn-rate alerts on the error ratio, for a service level objective.

    The burn rate of a window of time is its error ratio over the ratio that the objective allows. A pair of a long and
    a short window is exceeded when both burn faster than its rate: the long one says that it matters, the short one
    that it still goes on. The score is the slower of both over the rate, of the worst pair. After Beyer et al., "The
    Site Reliability Workbook" (2018), chapter 5.

    Errors and requests are kept in buckets of a tenth of the shortest short window, as integers, so that sums neither
    drift nor depend on where a job was stopped. Every pane is counted once for each window that it is in, which leaves
    ratios as they are. State is 16 bytes a bucket of the longest window and series.
    """

    def __init__(
        self,
        span: WindowSpan,
        state: bytes | None = None,
        *,
        objective: float,
        windows: Sequence[tuple[int, int, float]] = DEFAULT_BURN_WINDOWS,
        min_count: int = 100,
    ) -> None:
        """Start with nothing, or go on.

        Args:
            span: The windows that come in.
            state: What `to_bytes` gave under the same options.
            objective: Part of the requests that should succeed, in (0, 1).
            windows: Triples of long window, short window, both milliseconds, and burn rate.
            min_count: Requests that the short window needs before its ratio means anything.

        Raises:
            ValueError: An option is impossible.
            StateError: The state is of something else.
        """
        if not 0 < objective < 1:
            msg = f"`objective` must be between 0 and 1, or there is no budget to burn; got {objective}"
            raise ValueError(msg)
        if not windows or any(short < span.length_ms or long <= short or rate <= 0 for long, short, rate in windows):
            msg = (
                f"`windows` must be long/short/rate with a short one of at least {span.length_ms} ms, a longer long "
                f"one and a positive rate, or their burn rates would not differ; got {windows}"
            )
            raise ValueError(msg)
        self._allowed = 1 - objective
        self._rates = [rate for _, _, rate in windows]
        self._min_count = min_count * span.overlap
        shortest = min(short for _, short, _ in windows)
        self._bucket_ms = max(shortest // _BUCKETS_OF_SHORT // span.slide_ms, 1) * span.slide_ms
        self._spans = [(-(-long // self._bucket_ms), -(-short // self._bucket_ms)) for long, short, _ in windows]
        buckets = max(long for long, _ in self._spans)
        self._number: int | None = None
        self._ring = np.zeros((buckets, 2, 0), np.int64)
        if state is not None:
            _, values, arrays = unpack(_BURN, (_VERSION,), state)
            self._number, self._ring = values["number"], arrays["ring"]
        self._sums = [[self._sum(span) for span in pair] for pair in self._spans]

    def align(self, carry: NDArray[np.int64]) -> None:
        """Reorder, drop and add series."""
        fresh = np.zeros((*self._ring.shape[:-1], 1), np.int64)
        self._ring = np.concatenate((self._ring, fresh), axis=-1).take(carry, axis=-1)
        self._sums = [[self._sum(span) for span in pair] for pair in self._spans]

    def step(self, frame: WindowFrame) -> Opinion:
        """Add the windows to their bucket, then measure how fast every pair of windows burns."""
        self._turn_to(frame.window_end_ms // self._bucket_ms)
        newest = np.stack((frame.errors, frame.count))
        self._ring[self._place(0)] += newest
        opinion = Opinion.none(len(frame.count))
        worst = np.zeros(len(frame.count))
        for pair, rate in zip(self._sums, self._rates, strict=True):
            for total in pair:
                total += newest  # noqa: PLW2901 - in place
            (long_errors, long_count), (short_errors, short_count) = pair
            burn = np.minimum(long_errors / np.maximum(long_count, 1), short_errors / np.maximum(short_count, 1)) / (
                self._allowed * rate
            )
            worst = np.maximum(worst, np.where(short_count >= self._min_count, burn, 0.0))
        opinion.score[ERRORS] = np.minimum(worst, _LARGEST_SCORE)
        return opinion

    def to_bytes(self) -> bytes:
        """Encode the buckets."""
        return pack(_BURN, _VERSION, {"number": self._number}, {"ring": self._ring})

    def _turn_to(self, number: int) -> None:
        """Empty the buckets between the last one and this one."""
        before = self._number
        self._number = number
        if before is None or number <= before:
            return
        buckets = len(self._ring)
        for passed in range(before + 1, number + 1)[-buckets:]:
            self._ring[passed % buckets] = 0
        self._sums = [[self._sum(span) for span in pair] for pair in self._spans]

    def _place(self, back: int) -> int:
        assert self._number is not None
        return (self._number - back) % len(self._ring)

    def _sum(self, buckets: int) -> NDArray[np.int64]:
        """Add up the newest buckets: shape (2, n), errors and requests."""
        if self._number is None:
            return np.zeros(self._ring.shape[1:], np.int64)
        places = [self._place(back) for back in range(buckets)]
        summed: NDArray[np.int64] = self._ring[places].sum(axis=0)
        return summed


def _beyond(ratio: NDArray[Any]) -> NDArray[np.float64]:
    """Turn value over limit into a score: above 1 only where the value is above its limit, and bounded."""
    score: NDArray[np.float64] = np.minimum(
        np.where(ratio > 1, ratio, np.minimum(ratio, JUST_BELOW_ONE)), _LARGEST_SCORE
    )
    return score

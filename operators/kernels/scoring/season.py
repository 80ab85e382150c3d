"""The profile of the day, and of the week, of each series: how far its values usually are from its running level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

_OFFSET: Final = 0
_VISITS: Final = 1
_PARAMETERS: Final = 2


@dataclass(frozen=True, slots=True)
class SeasonConfig:
    """How a profile is learned.

    Attributes:
        bins: Bins of a period, a day or a week; 0 switches the profile off.
        memory_periods: Periods after which a period has lost most of its weight.
    """

    bins: int = 48
    memory_periods: float = 6.0


class Season:
    """Additive profile over the bins of a period, interpolated between their centres.

    The arrays are allocated when the first series is a period old and learned from then on, so that young series cost
    nothing.

    Attributes:
        bins: Shape (2, bins, signals, n): the offset of each bin and the windows it has seen; None before the
            first period is over.
    """

    def __init__(self, config: SeasonConfig, steps_per_period: int) -> None:
        """Start without a profile."""
        self.config = config
        self.bins: Floats | None = None
        self._steps_per_period = steps_per_period

    @property
    def nbytes(self) -> int:
        """Bytes of state in memory."""
        return 0 if self.bins is None else self.bins.nbytes

    def align(self, carry: NDArray[np.int64]) -> None:
        """Reorder, drop and add series; see `Detector.align`."""
        if self.bins is not None:
            fresh = np.zeros((*self.bins.shape[:-1], 1), self.bins.dtype)
            self.bins = np.concatenate((self.bins, fresh), axis=-1).take(carry, axis=-1)

    def restore(self, bins: Floats | None) -> None:
        """Take over a profile, or learn one anew where there is none, or one with other bins."""
        self.bins = bins if bins is not None and bins.shape[1] == self.config.bins else None

    def expected(self, phase: float | Floats) -> tuple[Floats | float, Floats | float]:
        """Return the offset at a part of the period in [0, 1), and how far it changes towards the next bin there.

        Bins that were never seen count as 0.

        Args:
            phase: One number for all series, or shape (n,).
        """
        if self.bins is None:
            return 0.0, 0.0
        place = phase * self.config.bins
        here = np.floor(place).astype(np.int64) if isinstance(place, np.ndarray) else int(place)
        off_centre = place - here - 0.5
        near = self._pick(here)
        beside = self._pick((here + np.where(off_centre > 0, 1, -1)) % self.config.bins)
        change = (beside[_OFFSET] - near[_OFFSET]) * ((beside[_VISITS] > 0) & (near[_VISITS] > 0))
        offset = near[_OFFSET] + np.abs(off_centre) * change
        dtype = self.bins.dtype
        return offset.astype(dtype, copy=False), np.abs(change).astype(dtype, copy=False)

    def learn(self, phase: float | Floats, residual: Floats, weight: Floats, seen: Floats) -> None:
        """Learn what the expectation missed.

        Args:
            phase: As for `expected`.
            residual: Shape (signals, n): value less expectation.
            weight: Shape (signals, n): what part of an independent value each is; 0 for none.
            seen: Shape (signals, n): steps known before; a series learns from its second period on.
        """
        old = seen >= self._steps_per_period
        if self.bins is None:
            if not self.config.bins or not np.count_nonzero(old):
                return
            self.bins = np.zeros((_PARAMETERS, self.config.bins, *residual.shape), residual.dtype)
        place = phase * self.config.bins
        here = np.floor(place).astype(np.int64) if isinstance(place, np.ndarray) else int(place)
        near = self._pick(here)
        counted = weight * old
        windows_per_bin = self._steps_per_period / self.config.bins
        rate = counted / np.minimum(near[_VISITS] + 2, self.config.memory_periods * windows_per_bin)
        self._place(here, near[_OFFSET] + residual * rate, near[_VISITS] + counted)

    def _pick(self, here: int | NDArray[np.int64]) -> Floats:
        """Return shape (2, signals, n): the parameters of one bin, or of one for each series."""
        assert self.bins is not None
        if isinstance(here, int):
            return self.bins[:, here]
        return np.moveaxis(self.bins[:, here, :, np.arange(self.bins.shape[-1])], 0, -1)

    def _place(self, here: int | NDArray[np.int64], offset: Floats, visits: Floats) -> None:
        assert self.bins is not None
        if isinstance(here, int):
            self.bins[_OFFSET, here] = offset
            self.bins[_VISITS, here] = visits
        else:
            every = np.arange(self.bins.shape[-1])
            self.bins[_OFFSET, here, :, every] = offset.T
            self.bins[_VISITS, here, :, every] = visits.T

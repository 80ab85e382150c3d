"""The profile of the day, and of the week, of each series: how far its values usually are from its running level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

_OFFSET: Final = 0
_VISITS: Final = 1
_PARAMETERS: Final = 2

_TURNS: Final = 2
"""Bins take turns in what is held back: the one that a series is in, and the one before."""

_NOWHERE: Final = -1

_STATE: Final = {"bins": "bins", "missed": "_missed", "places": "_places"}
"""Arrays of the state, and the attributes that hold them; the last axis of each is the series."""


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

    What is missed in a bin is added up, and enters the profile one bin after it was left: a profile that learned what
    happens now would expect it to go on, and find its end a surprise. The arrays are allocated when the first series is
    a period old and learned from then on, so that young series cost nothing.

    Attributes:
        bins: Shape (2, bins, signals, n): the offset of each bin and the windows it has seen; None before the
            first period is over.
    """

    def __init__(self, config: SeasonConfig, steps_per_period: int) -> None:
        """Start without a profile."""
        self.config = config
        self.bins: Floats | None = None
        self._missed: Floats = np.zeros(0)
        self._places: NDArray[np.int64] = np.zeros(0, np.int64)
        self._steps_per_period = steps_per_period

    @property
    def nbytes(self) -> int:
        """Bytes of state in memory."""
        return 0 if self.bins is None else self.bins.nbytes + self._missed.nbytes + self._places.nbytes

    def align(self, carry: NDArray[np.int64]) -> None:
        """Reorder, drop and add series; see `Detector.align`."""
        if self.bins is not None:
            fresh = Season(self.config, self._steps_per_period)
            fresh._allocate(np.zeros((self.bins.shape[2], 1), self.bins.dtype))
            for name, held in fresh.arrays().items():
                both = np.concatenate((self.arrays()[name], held), axis=-1)
                setattr(self, _STATE[name], both.take(carry, axis=-1))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state by name, as `restore` takes it: nothing before the first period is over."""
        return {} if self.bins is None else {name: getattr(self, own) for name, own in _STATE.items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over a profile, or learn one anew where there is none, or one with other bins."""
        bins = arrays.get("bins")
        self.bins = None
        if bins is not None and bins.shape[1] == self.config.bins:
            self._allocate(bins[0, 0])
            self.bins = bins
            self._missed, self._places = arrays.get("missed", self._missed), arrays.get("places", self._places)

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
            self._allocate(residual)
        counted = weight * old
        here = np.asarray(phase * self.config.bins, np.int64)
        for turn in range(_TURNS):
            mine = here % _TURNS == turn
            if np.count_nonzero(mine):
                left = np.flatnonzero(mine & (self._places[turn] != here))
                if len(left):
                    self._settle(turn, left)
                    self._places[turn, left] = here if here.ndim == 0 else here[left]
                share = counted * mine
                self._missed[turn, _OFFSET] += residual * share
                self._missed[turn, _VISITS] += share

    def _allocate(self, like: Floats) -> None:
        """Make the arrays for values of shape (signals, n)."""
        self.bins = np.zeros((_PARAMETERS, self.config.bins, *like.shape), like.dtype)
        self._missed = np.zeros((_TURNS, _PARAMETERS, *like.shape), like.dtype)
        self._places = np.full((_TURNS, like.shape[-1]), _NOWHERE, np.int64)

    def _settle(self, turn: int, left: NDArray[np.intp]) -> None:
        """Let what was missed in the bins that these series have left enter their profiles."""
        assert self.bins is not None
        place = self._places[turn, left]
        rows, place = left[place != _NOWHERE], place[place != _NOWHERE]
        missed, count = np.moveaxis(self._missed[turn][:, :, rows], -1, 1)
        visits = self.bins[_VISITS, place, :, rows] + count
        windows_per_bin = self._steps_per_period / self.config.bins
        known = np.minimum(visits, self.config.memory_periods * windows_per_bin)
        self.bins[_OFFSET, place, :, rows] += missed / np.maximum(np.maximum(known, count), 1)
        self.bins[_VISITS, place, :, rows] = visits
        self._missed[turn][:, :, left] = 0

    def _pick(self, here: int | NDArray[np.int64]) -> Floats:
        """Return shape (2, signals, n): the parameters of one bin, or of one for each series."""
        assert self.bins is not None
        if isinstance(here, int):
            return self.bins[:, here]
        return np.moveaxis(self.bins[:, here, :, np.arange(self.bins.shape[-1])], 0, -1)

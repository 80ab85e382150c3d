"""Which services have stopped sending, each judged by its own rhythm and never by a constant.

A window still holds requests for a window length after the last of them, so its count says too late that a service
is silent. The newest pane says it at once, and it follows from the counts: what entered the window is its change plus
what left it, which is the pane of one window length ago.

The rhythm of a service is the mean and the deviation of the time from one pane with requests to the next. Silence is
called after `mean * 1.5 + deviation * 12`. For requests that come at random, where that time is exponential and its
deviation equals its mean, this is 13.5 means, a chance of one in a million for each gap; a service with requests in
every pane is silent after four empty panes while it is young and after two when it has been steady for an hour; for a
job that runs every two minutes it is six minutes at first, and nears three. Gaps past the limit are learned as if they
had ended there, so that an outage doesn't teach a service to be silent. A service whose limit is longer than its series
live without requests is never called silent: it is forgotten first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from operators.kernels.episodes.config import EpisodeConfig
    from operators.kernels.frames import WindowFrame

MEMORY_GAPS: Final = 128
"""Gaps that a rhythm is averaged over: 21 minutes of panes of 10 s, so that it follows the hours of a day."""

_MEAN_FACTOR: Final = 1.5
_DEVIATION_FACTOR: Final = 12.0


class SilenceWatch:
    """The rhythm of every service of a shard, as arrays over services; one row a service with a live series.

    Args:
        config: Lengths of window and slide, floor and warm-up of silence.
    """

    def __init__(self, config: EpisodeConfig) -> None:
        """Start with no service."""
        self._config = config
        self.names: list[str] = []
        self.of_row: NDArray[np.int64] = np.empty(0, np.int64)
        self._oldest_pane = 0
        self._paused = False
        self._panes = np.zeros((config.length_ms // config.slide_ms, 0))
        self._total = np.empty(0)
        self._active_ms = np.empty(0, np.int64)
        self._gaps = np.empty(0, np.int64)
        self._mean_ms = np.empty(0)
        self._variance_ms2 = np.empty(0)
        self._blind = np.empty(0, np.bool_)

    @property
    def paused(self) -> bool:
        """Whether the newest pane of some service is empty."""
        return self._paused

    def lose_sight(self) -> None:
        """Give up telling panes apart, because window ends were skipped, until a service's window is empty."""
        self._blind[:] = True
        self._panes[:] = 0.0

    def follow(self, windows: WindowFrame, carry: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Take over the rows of a frame whose series changed.

        Args:
            windows: The frame.
            carry: Shape (n,): the former row of each series, -1 for a new one; None if all are new.

        Returns:
            Shape (services before,): the new position of each service, -1 if none of its series is left.
        """
        codes: dict[str, int] = {}
        rows = len(windows.service)
        of_row = np.fromiter((codes.setdefault(name, len(codes)) for name in windows.service), np.int64, rows)
        origin = np.full(len(codes), -1, np.int64)
        if carry is not None:
            kept = carry >= 0
            origin[of_row[kept]] = self.of_row[carry[kept]]
        moved = np.full(len(self.names), -1, np.int64)
        known = np.flatnonzero(origin >= 0)
        moved[origin[known]] = known
        self._rearrange(origin, windows.window_end_ms)
        self.names, self.of_row = list(codes), of_row
        return moved

    def _rearrange(self, origin: NDArray[np.int64], end_ms: int) -> None:
        slide_ms = self._config.slide_ms
        self._panes = np.stack([_taken(pane, origin, 0.0) for pane in self._panes])
        self._total = _taken(self._total, origin, 0.0)
        self._active_ms = _taken(self._active_ms, origin, end_ms - slide_ms)
        self._gaps = _taken(self._gaps, origin, 0)
        self._mean_ms = _taken(self._mean_ms, origin, float(slide_ms))
        # A new service starts with one imagined irregular gap, so that a few regular ones don't make it perfect.
        self._variance_ms2 = _taken(self._variance_ms2, origin, float(slide_ms) ** 2)
        self._blind = _taken(self._blind, origin, False)  # noqa: FBT003

    def observe(self, windows: WindowFrame) -> None:
        """See the requests of one more window and learn from the gaps that it ends.

        Args:
            windows: The frame that `follow` last saw, or a later one with the same rows.
        """
        if not self.names:
            self._paused = False
            return
        total: NDArray[np.float64] = np.bincount(self.of_row, windows.count, len(self.names)).astype(
            np.float64, copy=False
        )
        newest = total - self._total
        newest += self._panes[self._oldest_pane]
        self._total = total
        end_ms = windows.window_end_ms
        if newest.min() > 0 and not self._paused and not self._blind.any():
            self._learn(slice(None), self._config.slide_ms)
            self._active_ms.fill(end_ms)
        else:
            newest = self._observe_gaps(total, newest, end_ms)
        self._panes[self._oldest_pane] = newest
        self._oldest_pane = (self._oldest_pane + 1) % len(self._panes)

    def _observe_gaps(
        self, total: NDArray[np.float64], newest: NDArray[np.float64], end_ms: int
    ) -> NDArray[np.float64]:
        lost = newest < 0
        self._panes[:, lost] = 0.0
        self._blind = (self._blind | lost) & (total > 0)
        active = np.where(self._blind, total > 0, newest > 0)
        ended = np.flatnonzero(active & ~self._blind)
        gap_ms = (end_ms - self._active_ms[ended]).astype(np.float64)
        taught = self._gaps[ended] >= self._config.silence_warmup_gaps
        longest_ms = np.where(taught, self.limit_ms()[ended] + self._config.slide_ms, np.inf)
        self._learn(ended, np.minimum(gap_ms, longest_ms))
        self._active_ms[active] = end_ms
        self._paused = not active.all()
        return np.where(self._blind, 0.0, np.maximum(newest, 0.0))

    def _learn(self, which: slice | NDArray[np.int64], gap_ms: float | NDArray[np.float64]) -> None:
        gaps = np.minimum(self._gaps[which] + 1, MEMORY_GAPS)
        weight = 1.0 / (gaps + 1)
        off_ms = gap_ms - self._mean_ms[which]
        step_ms = weight * off_ms
        self._gaps[which] = gaps
        self._mean_ms[which] += step_ms
        variance_ms2 = self._variance_ms2[which]
        self._variance_ms2[which] = (1.0 - weight) * (variance_ms2 + step_ms * off_ms)

    def limit_ms(self) -> NDArray[np.float64]:
        """Say after how long without requests each service is silent.

        Returns:
            Shape (services,), milliseconds.
        """
        usual_ms = _MEAN_FACTOR * self._mean_ms + _DEVIATION_FACTOR * np.sqrt(self._variance_ms2)
        return np.maximum(usual_ms, self._config.silence_floor_ms)

    def usual_gap_ms(self, service: int) -> float:
        """Say how far apart panes with requests of one service usually are.

        Args:
            service: Position in `names`.

        Returns:
            Milliseconds, at least the slide.
        """
        return float(self._mean_ms[service])

    def active_ms(self, service: int) -> int:
        """Say when one service was last seen with requests.

        Args:
            service: Position in `names`.

        Returns:
            End of its newest pane with requests, event time.
        """
        return int(self._active_ms[service])

    def learned(self) -> NDArray[np.bool_]:
        """Say whose rhythm is known well enough for silence to mean something.

        Returns:
            Shape (services,).
        """
        return self._gaps >= self._config.silence_warmup_gaps

    def scores(self, end_ms: int) -> NDArray[np.float64]:
        """Say how overdue the next request of each service is.

        Args:
            end_ms: Present window end, event time.

        Returns:
            Shape (services,): time without requests divided by `limit_ms`; 0 while the rhythm isn't learned.
        """
        return np.where(self.learned(), (end_ms - self._active_ms) / self.limit_ms(), 0.0)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what `restore` needs: plain values and arrays, for the codec."""
        values = {"names": list(self.names), "oldest_pane": self._oldest_pane, "paused": self._paused}
        return values, {
            "of_row": self.of_row,
            "panes": self._panes,
            "total": self._total,
            "active_ms": self._active_ms,
            "gaps": self._gaps,
            "mean_ms": self._mean_ms,
            "variance_ms2": self._variance_ms2,
            "blind": self._blind,
        }

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state` returned.

        Args:
            values: Plain values.
            arrays: Arrays; kept and written to.

        Raises:
            ValueError: The state was written with another number of panes in a window.
        """
        if len(arrays["panes"]) != len(self._panes):
            msg = (
                "`length_ms` / `slide_ms` must stay what the snapshot was written with, or panes would be mixed up; "
                f"got {len(self._panes)} panes, the snapshot has {len(arrays['panes'])}"
            )
            raise ValueError(msg)
        self.names, self._oldest_pane, self._paused = values["names"], values["oldest_pane"], values["paused"]
        self.of_row, self._panes, self._total = arrays["of_row"], arrays["panes"], arrays["total"]
        self._active_ms, self._gaps, self._blind = arrays["active_ms"], arrays["gaps"], arrays["blind"]
        self._mean_ms, self._variance_ms2 = arrays["mean_ms"], arrays["variance_ms2"]


def _taken(column: NDArray[Any], origin: NDArray[np.int64], fresh: float | bool) -> NDArray[Any]:  # noqa: FBT001
    taken = np.full(len(origin), fresh, column.dtype)
    known = origin >= 0
    taken[known] = column[origin[known]]
    return taken

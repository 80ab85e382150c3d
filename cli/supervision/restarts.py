"""How long to wait before a cluster is started again, and when to give up."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

LONGEST_DELAY_S: Final = 30.0


@dataclass(slots=True)
class Restarts:
    """A limit on restarts, and a delay that doubles with each of them.

    Attributes:
        most: How many there may be within the span; 0: none at all.
        within_s: The span. A restart that is longer ago is forgotten, by the limit and by the delay.
        first_delay_s: Delay of the first one.
    """

    most: int
    within_s: float
    first_delay_s: float
    _times_s: deque[float] = field(default_factory=deque)

    @property
    def recent(self) -> int:
        """How many restarts are remembered."""
        return len(self._times_s)

    def next_delay_s(self, now_s: float) -> float | None:
        """Ask for one more.

        Args:
            now_s: Seconds of a clock that never jumps.

        Returns:
            How long to wait first, in seconds; None when there were too many.
        """
        while self._times_s and now_s - self._times_s[0] > self.within_s:
            self._times_s.popleft()
        if len(self._times_s) >= self.most:
            return None
        delay_s = min(LONGEST_DELAY_S, self.first_delay_s * 2.0 ** len(self._times_s))
        self._times_s.append(now_s)
        return delay_s

"""What keeps an anomaly from becoming a page: maintenance, feedback, the budget of alerts, and too many at once.

All of it follows from event time and the configuration, so that a replay opens the same alerts.
"""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.kernels.episodes.wording import ALERTNAMES, SILENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from operators.kernels.episodes.wording import Facts

MAINTENANCE: Final = "maintenance"
FEEDBACK: Final = "feedback"
BUDGET: Final = "budget"
DISCOVERY: Final = "discovery"
REASONS: Final = (MAINTENANCE, FEEDBACK, BUDGET, DISCOVERY)
"""Why an anomaly is held back, in the order in which it is asked."""

LEAST_ALERTS_PER_DAY: Final = 5.0
"""What a shard may open in a day whatever its budget: that of a few series would be gone with their first incident."""

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A span of event time in which series are worked on, so that nothing about them is news.

    Attributes:
        series: Pattern of `service|endpoint`, with `*`, `?` and `[…]`.
        start_ms: Window ends after this are in it, event time.
        end_ms: Up to this one.
    """

    series: str
    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        """Check that it has a length.

        Raises:
            ValueError: It ends before it starts.
        """
        if self.end_ms <= self.start_ms:
            msg = (
                f"`maintenance` must end after it starts, or it would cover nothing; got {self.start_ms}..{self.end_ms}"
            )
            raise ValueError(msg)

    def covers(self, series: str, end_ms: int) -> bool:
        """Tell whether a window of a series lies in it, judged by its end."""
        return self.start_ms < end_ms <= self.end_ms and fnmatch.fnmatchcase(series, self.series)


@dataclass(frozen=True, slots=True)
class Harmless:
    """Somebody's word that an alert was no anomaly: what is no farther off is none either.

    Attributes:
        alertname: One of `ALERTNAMES`.
        service: Service of the alert.
        endpoint: Endpoint of the alert.
        value: What the window showed that opened the alert, in the unit of its signal; for a silence not asked.
        expected: What was expected then: it tells in which direction values are farther off.
        until_ms: Event time from which on it holds no longer; None: for ever.
    """

    alertname: str
    service: str
    endpoint: str
    value: float | None
    expected: float | None
    until_ms: int | None = None

    def excuses(self, facts: Facts, end_ms: int) -> bool:
        """Tell whether an anomaly is no worse than the one that was harmless."""
        if (self.alertname, self.service, self.endpoint) != (ALERTNAMES[facts.kind], facts.service, facts.endpoint):
            return False
        if self.until_ms is not None and end_ms > self.until_ms:
            return False
        if facts.kind == SILENCE or self.value is None:
            return True
        upwards = self.expected is None or self.value >= self.expected
        return facts.value <= self.value if upwards else facts.value >= self.value


@dataclass(frozen=True, slots=True)
class HeldBack:
    """An anomaly that would have opened an alert and did not.

    Attributes:
        reason: One of `REASONS`.
        alertname: Name of the alert.
        service: Service.
        endpoint: Endpoint.
        window_end_ms: End of the window in which it was first held back.
        score: Its score then.
    """

    reason: str
    alertname: str
    service: str
    endpoint: str
    window_end_ms: int
    score: float


class Budget:
    """How far above 1 a score must be to open an alert, so that a shard keeps near its alerts a series a day.

    The realised rate is the number of alerts opened, of which each loses its weight with a time constant of a day.
    While it is within the budget an anomaly needs a score of 1; above, a score as many times higher as the rate exceeds
    the budget, but no more than `most`: what is clear enough to open at once always does. The probability of a score
    falls by orders of magnitude on the way from 1 to 2, so the rate settles a little above the budget.
    """

    def __init__(self, alerts_per_day: float | None, most: float) -> None:
        """Start with nothing spent.

        Args:
            alerts_per_day: Alerts a series a day; None is no budget.
            most: The largest factor.
        """
        self._alerts_per_day = alerts_per_day
        self._most = most
        self._spent = 0.0
        self._at_ms = 0

    def factor(self, series: int, end_ms: int) -> float:
        """Give the score that an anomaly needs now.

        Args:
            series: Live series of the shard.
            end_ms: Present window end, event time.
        """
        if self._alerts_per_day is None:
            return 1.0
        allowed = max(self._alerts_per_day * series, LEAST_ALERTS_PER_DAY)
        return min(max(self._left(end_ms) / allowed, 1.0), self._most)

    def spend(self, end_ms: int) -> None:
        """Note that an alert has opened."""
        if self._alerts_per_day is not None:
            self._spent, self._at_ms = self._left(end_ms) + 1.0, end_ms

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {"spent": self._spent, "at_ms": self._at_ms}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._spent, self._at_ms = values["spent"], values["at_ms"]

    def _left(self, end_ms: int) -> float:
        return self._spent * math.exp(-max(end_ms - self._at_ms, 0) / _DAY_MS)


def discoveries(score: NDArray[np.float64], *, tests: int, surprise: float, ratio: float) -> NDArray[np.bool_]:
    """Tell which of the anomalies that came up at once are more than chance among so many looks.

    After Benjamini and Hochberg, "Controlling the False Discovery Rate" (1995): of all looks at a window end, those
    with the k smallest probabilities count, for the largest k whose largest probability is at most `ratio * k / tests`.

    Args:
        score: Shape (n,): scores of the anomalies, 1 or more.
        tests: All looks, those without an anomaly too.
        surprise: -log10 of the probability at which a score is 1.
        ratio: The part of the discoveries that may be chance.

    Returns:
        Shape (n,), bool.
    """
    order = np.argsort(-score, kind="stable")
    allowed = np.log10(ratio * np.arange(1, len(score) + 1) / max(tests, 1))
    passing = np.flatnonzero(-score[order] * surprise <= allowed)
    kept = np.zeros(len(score), bool)
    if len(passing):
        kept[order[: passing[-1] + 1]] = True
    return kept

"""The life of one alert: evidence, opening, hold, resolve, and the memory of earlier openings.

Every rule counts event time and not windows, so that skipped window ends neither stretch nor shorten anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from operators.kernels.episodes.config import ANOMALOUS_SCORE

if TYPE_CHECKING:
    from operators.kernels.episodes.config import EpisodeConfig
    from operators.kernels.frames import Transition


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one alert stands.

    Attributes:
        alertname: Its name.
        evidence: (window end, score) of the anomalous windows that count towards opening it.
        needed_score: The score that the largest of them must have, 1 within the budget.
        held: Why it did not open though it would have; empty if nothing holds it back.
        firing: The transition that opened it, None while it is not open.
    """

    alertname: str
    evidence: tuple[tuple[int, float], ...]
    needed_score: float
    held: str
    firing: Transition | None


@dataclass(slots=True)
class Track:
    """What is remembered of one series and signal, or of one service's silence, while there is anything to remember.

    Attributes:
        service: Label of its alerts.
        endpoint: Label of its alerts; empty for a service.
        evidence: (window end, score) of anomalous windows not older than `open_within_windows`; empty while firing.
        opened_ms: Window ends that opened an episode, not older than `flap_horizon_ms`; at most `flap_opens`.
        firing: The transition that opened the present episode, None if there is none.
        loud_ms: Last window end with a score of `close_score` or more.
        unknown_ms: Last window end without a score.
        held: Why the present anomaly opened nothing, one of `suppression.REASONS`; empty while there is no such reason.
        incident: Name of the incident that the open episode belongs to; empty if there is none.
    """

    service: str
    endpoint: str
    evidence: list[tuple[int, float]] = field(default_factory=list)
    opened_ms: list[int] = field(default_factory=list)
    firing: Transition | None = None
    loud_ms: int = 0
    unknown_ms: int = 0
    held: str = ""
    incident: str = ""

    def note(self, config: EpisodeConfig, end_ms: int, score: float) -> None:
        """Take in the score of one more window.

        Args:
            config: Policy.
            end_ms: End of the window.
            score: Its score, NaN if unknown.
        """
        if score >= config.close_score:
            self.loud_ms = end_ms
        elif math.isnan(score):
            self.unknown_ms = end_ms
        if self.firing is not None:
            return
        if self.held and end_ms - self.loud_ms >= config.quiet_ms:
            self.held = ""
        oldest_ms = end_ms - (config.open_within_windows - 1) * config.slide_ms
        self.evidence = [(at_ms, seen) for at_ms, seen in self.evidence if at_ms >= oldest_ms]
        if score >= ANOMALOUS_SCORE:
            self.evidence.append((end_ms, score))
        if self.opened_ms:
            self.opened_ms = [at_ms for at_ms in self.opened_ms if at_ms > end_ms - config.flap_horizon_ms]

    def may_open(self, config: EpisodeConfig, end_ms: int) -> bool:
        """Say whether the evidence opens an episode: one very unlikely window now, or enough anomalous ones up to now.

        Args:
            config: Policy.
            end_ms: End of the window last noted.

        Returns:
            Whether to open.
        """
        if not self.evidence or self.evidence[-1][0] != end_ms:
            return False
        return self.evidence[-1][1] >= config.immediate_score or len(self.evidence) >= config.open_windows

    def remember_opening(self, config: EpisodeConfig, end_ms: int) -> bool:
        """Count an opening.

        Args:
            config: Policy.
            end_ms: End of the window that opened the episode.

        Returns:
            Whether the episode is flapping.
        """
        self.opened_ms = [*self.opened_ms, end_ms][-config.flap_opens :]
        return len(self.opened_ms) >= config.flap_opens

    def is_over(self, config: EpisodeConfig, end_ms: int) -> bool:
        """Say whether the open episode has been quiet for long enough.

        Args:
            config: Policy.
            end_ms: End of the window last noted.

        Returns:
            Whether to resolve.
        """
        flapping = self.firing is not None and self.firing.flapping
        quiet_ms = config.flap_quiet_ms if flapping else config.quiet_ms
        held_ms = min(self.unknown_ms, self.loud_ms + config.unknown_hold_ms)
        return end_ms - max(self.loud_ms, held_ms) >= quiet_ms

    def is_fresh(self) -> bool:
        """Say whether an anomaly now would be news: nothing is open, and no evidence has been counted yet."""
        return self.firing is None and not self.evidence

    def is_idle(self) -> bool:
        """Say whether there is nothing left to remember."""
        return self.firing is None and not self.evidence and not self.opened_ms and not self.held

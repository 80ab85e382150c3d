"""When an alert opens, how long it is held, and where it sends the person who reads it."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from operators.kernels.episodes.suppression import Harmless, Maintenance

ANOMALOUS_SCORE: Final = 1.0
"""From here on a window is anomalous, whatever the detector."""

URL_FIELDS: Final = frozenset({"alertname", "service", "endpoint", "from_ms", "to_ms"})
"""What a URL template may contain in braces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeConfig:
    """The policy of alert episodes. Every duration is event time.

    Neighbouring windows share all but one pane, so `open_windows` of `open_within_windows` are not independent looks:
    they ask that the evidence is still there after another slide, which rejects a score that flickers around 1. A
    burst strong enough to move a whole window is in every window that holds its pane, and opens an episode. Looks
    without overlap would cost a window length of delay.

    Attributes:
        length_ms: Length of a window.
        slide_ms: Time from one window end to the next; divides `length_ms`.
        immediate_score: One window with this score opens an episode.
        open_windows: So many anomalous windows open an episode, of the last `open_within_windows`.
        open_within_windows: How many windows back the evidence may lie, the present one included.
        latency_critical_score: A `LatencyAnomaly` is critical if its opening evidence reached this score.
        errors_critical_score: The same for `ErrorRatioAnomaly`; lower, because a failed request is a user harmed.
        traffic_critical_score: The same for `TrafficAnomaly`. `ServiceSilent` is always critical.
        close_score: Below this score a window is quiet; lower than 1, so that an episode doesn't flicker.
        quiet_ms: So long must an episode be quiet to be resolved; longer than `length_ms`, so that one spike that
            leaves the window doesn't resolve an episode that the next spike opens again.
        unknown_hold_ms: Windows without a score are no calm: they hold an episode, but no longer than this after its
            last loud window.
        flap_opens: An episode that is the so-manieth within `flap_horizon_ms` is flapping.
        flap_horizon_ms: How long an opening is remembered.
        flap_quiet_ms: So long must a flapping episode be quiet to be resolved.
        traffic_rises_open: Whether more traffic than expected opens a `TrafficAnomaly`. By default it doesn't: a rise
            that hurts shows in latency or errors, and one that doesn't is no reason to wake somebody.
        silence_floor_ms: No service is called silent after less than this without requests.
        silence_warmup_gaps: How many gaps between requests a service must have shown before its silence means
            something; at most `silence.MEMORY_GAPS`.
        alerts_per_day: Budget of alerts a series a day, see `suppression.Budget`; None is no budget.
        false_discovery_ratio: The part of the anomalies that come up at one window end of one shard that may be chance;
            from 1 on nobody asks.
        surprise: -log10 of the probability at which a score is 1.
        maintenance: Spans of event time in which series are worked on.
        harmless: What somebody has said of earlier alerts.
        runbook_url: Template of the runbook's address; `URL_FIELDS` in braces, percent-encoded when filled in.
        dashboard_url: Template of the dashboard's address, likewise.
    """

    length_ms: int = 60_000
    slide_ms: int = 10_000
    immediate_score: float = 2.0
    open_windows: int = 2
    open_within_windows: int = 3
    latency_critical_score: float = 2.0
    errors_critical_score: float = 1.5
    traffic_critical_score: float = 2.0
    close_score: float = 0.7
    quiet_ms: int = 90_000
    unknown_hold_ms: int = 300_000
    flap_opens: int = 3
    flap_horizon_ms: int = 1_800_000
    flap_quiet_ms: int = 600_000
    traffic_rises_open: bool = False
    silence_floor_ms: int = 20_000
    silence_warmup_gaps: int = 30
    alerts_per_day: float | None = None
    false_discovery_ratio: float = 0.1
    surprise: float = 4.5
    maintenance: tuple[Maintenance, ...] = ()
    harmless: tuple[Harmless, ...] = ()
    runbook_url: str = "http://localhost:3000/d/runbook-{alertname}"
    dashboard_url: str = (
        "http://localhost:3000/d/tailmark-service"
        "?var-service={service}&var-endpoint={endpoint}&from={from_ms}&to={to_ms}"
    )

    def __post_init__(self) -> None:
        """Check that the policy can work.

        Raises:
            ValueError: A value breaks a rule; the message names the value, the rule and the consequence.
        """
        self._check_windows()
        self._check_thresholds()
        self._check_flapping()
        self._check_suppression()
        _check_template("runbook_url", self.runbook_url)
        _check_template("dashboard_url", self.dashboard_url)

    @classmethod
    def for_windows(cls, *, length_ms: int, slide_ms: int) -> EpisodeConfig:
        """Make the default policy for windows of any size: its times are in proportion to those for a minute by 10 s.

        Args:
            length_ms: Length of a window.
            slide_ms: Time from one window end to the next.

        Returns:
            The policy, the defaults themselves for 60,000 and 10,000.

        Raises:
            ValueError: `slide_ms` doesn't divide `length_ms`.
        """
        return cls(
            length_ms=length_ms,
            slide_ms=slide_ms,
            quiet_ms=length_ms + (length_ms + 1) // 2,
            unknown_hold_ms=length_ms * 5,
            flap_horizon_ms=length_ms * 30,
            flap_quiet_ms=length_ms * 10,
            silence_floor_ms=slide_ms * 2,
        )

    def _check_windows(self) -> None:
        if self.slide_ms <= 0 or self.length_ms <= 0 or self.length_ms % self.slide_ms:
            msg = (
                "`slide_ms` must be positive and divide `length_ms`, or panes would straddle windows; "
                f"got {self.slide_ms} and {self.length_ms}"
            )
            raise ValueError(msg)
        if not 1 <= self.open_windows <= self.open_within_windows:
            msg = (
                "`open_windows` must be in 1..`open_within_windows`, or no episode would ever open; "
                f"got {self.open_windows} of {self.open_within_windows}"
            )
            raise ValueError(msg)
        if self.quiet_ms <= self.length_ms:
            msg = (
                "`quiet_ms` must be longer than `length_ms`, or a spike would resolve when it leaves the window; "
                f"got {self.quiet_ms} and {self.length_ms}"
            )
            raise ValueError(msg)
        if self.unknown_hold_ms < 0 or self.silence_floor_ms < self.slide_ms or self.silence_warmup_gaps < 1:
            msg = (
                "`unknown_hold_ms` must be at least 0, `silence_floor_ms` at least `slide_ms` and "
                "`silence_warmup_gaps` at least 1, or every pause would be a silence; "
                f"got {self.unknown_hold_ms}, {self.silence_floor_ms} and {self.silence_warmup_gaps}"
            )
            raise ValueError(msg)

    def _check_thresholds(self) -> None:
        if not 0 < self.close_score <= ANOMALOUS_SCORE:
            msg = (
                "`close_score` must be above 0 and at most 1, or an anomalous window would count as quiet; "
                f"got {self.close_score}"
            )
            raise ValueError(msg)
        for name in ("immediate_score", "latency_critical_score", "errors_critical_score", "traffic_critical_score"):
            if not getattr(self, name) >= ANOMALOUS_SCORE:
                msg = f"`{name}` must be at least 1, where a window is anomalous; got {getattr(self, name)}"
                raise ValueError(msg)

    def _check_flapping(self) -> None:
        if self.flap_opens <= 1 or self.flap_horizon_ms <= 0 or self.flap_quiet_ms < self.quiet_ms:
            msg = (
                "`flap_opens` must be at least 2, `flap_horizon_ms` positive and `flap_quiet_ms` at least `quiet_ms`, "
                "or a flapping alert would be held shorter than a calm one; "
                f"got {self.flap_opens}, {self.flap_horizon_ms} and {self.flap_quiet_ms}"
            )
            raise ValueError(msg)

    def _check_suppression(self) -> None:
        if self.alerts_per_day is not None and not self.alerts_per_day > 0:
            msg = f"`alerts_per_day` must be positive, or no alert would be within it; got {self.alerts_per_day}"
            raise ValueError(msg)
        if not self.false_discovery_ratio > 0 or not self.surprise > 0:
            msg = (
                "`false_discovery_ratio` and `surprise` must be positive, or no anomaly would count; "
                f"got {self.false_discovery_ratio} and {self.surprise}"
            )
            raise ValueError(msg)


def _check_template(name: str, template: str) -> None:
    if not template.startswith(("http://", "https://")):
        msg = f"`{name}` must start with http:// or https://, or nobody can open it from an alert; got {template!r}"
        raise ValueError(msg)
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        msg = f"`{name}` must be a template with paired braces, or it can't be filled in; got {template!r}"
        raise ValueError(msg) from error
    if unknown := fields - URL_FIELDS:
        msg = (
            f"`{name}` may name only {', '.join(sorted(URL_FIELDS))} in braces, or it can't be filled in; "
            f"got {', '.join(sorted(unknown)) or 'an empty name'}"
        )
        raise ValueError(msg)

"""Why a series fired or did not: its recorded windows, looked at again by the kernels that judged them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from cli.explain_series import NothingToExplainError
from evaluation.window_table import frames_of
from operators.kernels.episodes import Episodes
from operators.kernels.episodes.config import ANOMALOUS_SCORE
from operators.kernels.episodes.silence import SilenceWatch
from operators.kernels.episodes.suppression import BUDGET, DISCOVERY, FEEDBACK, MAINTENANCE
from operators.kernels.episodes.transitions import series_facts
from operators.kernels.episodes.wording import ALERTNAMES, FIRING, SILENCE, TRAFFIC, annotate, duration_text
from operators.kernels.frames import SIGNALS, STATES, WARMING
from operators.kernels.scoring import Scorer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.explain_read import AlertFacts, Recorded
    from cli.explain_series import Series
    from operators.kernels.episodes import EpisodeConfig
    from operators.kernels.episodes.track import Standing
    from operators.kernels.episodes.wording import Facts
    from operators.kernels.frames import ScoredFrame
    from operators.kernels.scoring import Explanation, ScoringConfig

_HELD: Final = {
    MAINTENANCE: "because maintenance covers this time",
    FEEDBACK: "because somebody has called one like it harmless",
    BUDGET: "because the budget of alerts is spent",
    DISCOVERY: "because one like it comes up by chance among so many looks",
}

_SAME: Final = 1e-6
"""Scores closer than this are the same: they went through decimal text and single precision."""


@dataclass(frozen=True, slots=True)
class SignalAccount:
    """One signal of the window.

    Attributes:
        signal: One of `SIGNALS`.
        score: As recorded.
        words: What an alert about it says, or would have said.
        recent: Scores of the last windows that count for opening an alert, as recorded, oldest first.
        opening: Why its alert opened or did not.
    """

    signal: str
    score: float
    words: str
    recent: tuple[float, ...]
    opening: str


@dataclass(frozen=True, slots=True)
class SilenceAccount:
    """How the service stands by its own rhythm.

    Attributes:
        quiet_ms: Time without requests on any of its endpoints.
        limit_ms: What was learned to be too long for it.
        learned: Whether its rhythm is known well enough for silence to mean something.
        opening: Where its alert stands; empty when there is nothing to say.
    """

    quiet_ms: int
    limit_ms: float
    learned: bool
    opening: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that is to be said of one window of one series.

    Attributes:
        explanation: What the detector says when it looks at the recorded windows again.
        signals: One account for each of `SIGNALS`.
        silence: Of the whole service.
        alerts: Transitions of the series and of its service up to the window, the latest first.
        replayed: How many windows of the series the detector looked at again.
        exact: Whether it came to the scores that were recorded. It does when it saw what the flow saw.
    """

    explanation: Explanation
    signals: tuple[SignalAccount, ...]
    silence: SilenceAccount
    alerts: tuple[AlertFacts, ...]
    replayed: int
    exact: bool

    @property
    def episodes(self) -> list[tuple[AlertFacts, int | None]]:
        """What fired up to the window, the latest first, each with when it was resolved; None while it is open."""
        ends = {(one.labels["alertname"], one.starts_at_ms): one for one in self.alerts if one.status == "resolved"}
        return [
            (one, end.window_end_ms if (end := ends.get((one.labels["alertname"], one.starts_at_ms))) else None)
            for one in self.alerts
            if one.status == "firing"
        ]

    @property
    def open_alerts(self) -> list[AlertFacts]:
        """The alerts that are open at the end of the window."""
        return [alert for alert, ended_ms in self.episodes if ended_ms is None]


def account_of(
    recorded: Recorded, series: Series, *, at_ms: int | None, scoring: ScoringConfig, policy: EpisodeConfig
) -> Account:
    """Look at the windows of a service again, up to a time.

    Args:
        recorded: Windows and alerts of the service.
        series: The series to account for.
        at_ms: Event time; the last window that ends by then is explained. The newest one when None.
        scoring: Settings of the detectors.
        policy: Settings of the alerts.

    Raises:
        NothingToExplainError: No window of the series ends by then, or it is later than all of them.
    """
    service, endpoint = series
    windows = recorded.windows.filter(pl.col("service") == service).unique(["endpoint", "window_end_ms"])
    end_ms = _end_ms(windows.filter(pl.col("endpoint") == endpoint), series, at_ms, policy.slide_ms)
    windows = windows.filter(pl.col("window_end_ms") <= end_ms)
    replay = _Replay(scoring, policy, endpoint)
    for frame in frames_of(windows):
        replay.step(frame, explained=frame.windows.window_end_ms == end_ms)
    told = [alert for alert in recorded.alerts if _is_of(alert, series) and alert.window_end_ms <= end_ms]
    account = Account(
        explanation=replay.explanations[0],
        signals=(),
        silence=replay.silence(),
        alerts=tuple(sorted(told, key=lambda alert: -alert.window_end_ms)),
        replayed=int((windows["endpoint"] == endpoint).sum()),
        exact=replay.exact,
    )
    return replace(
        account,
        signals=tuple(_signal(number, replay, account) for number in range(len(SIGNALS))),
        silence=replace(account.silence, opening=_told(ALERTNAMES[SILENCE], replay, account)),
    )


class _Replay:
    """The kernels of one shard, on the recorded windows of one service.

    Attributes:
        policy: Settings of the alerts.
        endpoint: Endpoint of the series that matters.
        recent: The last windows that count for opening an alert, oldest first.
        explanations: Of the last window, once it was asked for.
        exact: Whether the detector came to the recorded scores in the last window.
    """

    def __init__(self, scoring: ScoringConfig, policy: EpisodeConfig, endpoint: str) -> None:
        self.policy = policy
        self.endpoint = endpoint
        self.recent: list[ScoredFrame] = []
        self.explanations: list[Explanation] = []
        self.exact = False
        self._scorer = Scorer(scoring, policy.slide_ms, policy.length_ms)
        self._watch = SilenceWatch(policy)
        self._episodes = Episodes(policy)

    def step(self, frame: ScoredFrame, *, explained: bool) -> None:
        """Take in the windows of one more end, and explain that of the series when asked to."""
        now, row, policy = frame.windows, row_of(frame, self.endpoint), self.policy
        again, self.explanations = self._scorer.step_explained(now, [row] if explained else [])
        if self.recent and now.window_end_ms != self.recent[-1].windows.window_end_ms + policy.slide_ms:
            self._watch.lose_sight()
        if not self.recent or now.carry is not None:
            self._watch.follow(now, now.carry if self.recent else None)
        self._watch.observe(now)
        self._episodes.step(replace(frame, by_rule=again.by_rule))
        oldest_ms = now.window_end_ms - (policy.open_within_windows - 1) * policy.slide_ms
        self.recent = [one for one in self.recent if one.windows.window_end_ms >= oldest_ms] + [frame]
        if explained:
            self.exact = bool(np.allclose(again.score[:, row], frame.score[:, row], rtol=_SAME, atol=_SAME))

    def standing(self, alertname: str) -> Standing | None:
        """Tell where an alert of the series or its service stands, by the recorded scores; None when nowhere."""
        service = self.recent[-1].windows.service[0]
        found = self._episodes.standings(service, self.endpoint)
        return next((one for one in found if one.alertname == alertname), None)

    def silence(self) -> SilenceAccount:
        """Tell how the service stands by its own rhythm."""
        watch, end_ms = self._watch, self.recent[-1].windows.window_end_ms
        return SilenceAccount(
            quiet_ms=end_ms - watch.active_ms(0), limit_ms=float(watch.limit_ms()[0]), learned=bool(watch.learned()[0])
        )


def _end_ms(windows: pl.DataFrame, series: Series, at_ms: int | None, slide_ms: int) -> int:
    name = "|".join(series)
    ends = windows["window_end_ms"].sort()
    if at_ms is None:
        return int(ends[-1])
    if at_ms >= ends[-1] + slide_ms:
        raise NothingToExplainError(
            f"the newest window of {name!r} ends at {clock(ends[-1])}, so nothing is known of {clock(at_ms)}"
        )
    if at_ms < ends[0]:
        raise NothingToExplainError(
            f"the oldest window of {name!r} that was read ends at {clock(ends[0])}, after {clock(at_ms)}: the topic no"
            " longer has older ones, or --history is too short"
        )
    return int(ends.filter(ends <= at_ms)[-1])


def row_of(frame: ScoredFrame, endpoint: str) -> int:
    """Find the row of an endpoint in the windows of one service; -1 where it has none."""
    return frame.windows.endpoint.index(endpoint) if endpoint in frame.windows.endpoint else -1


def _is_of(alert: AlertFacts, series: Series) -> bool:
    return alert.labels["service"] == series[0] and alert.labels["endpoint"] in {series[1], ""}


def _signal(number: int, replay: _Replay, account: Account) -> SignalAccount:
    frame = replay.recent[-1]
    row, end_ms = row_of(frame, replay.endpoint), frame.windows.window_end_ms
    facts = series_facts(frame, number, row)
    words = annotate(replay.policy, facts, FIRING, starts_at_ms=end_ms, end_ms=end_ms, flapping=False)
    rows = [(one, row_of(one, replay.endpoint)) for one in replay.recent]
    scores = tuple(float(one.score[number, place]) for one, place in rows if place >= 0)
    return SignalAccount(
        signal=SIGNALS[number],
        score=facts.score,
        words=words["description"],
        recent=scores,
        opening=_opening(number, replay, facts, scores, account),
    )


def _opening(number: int, replay: _Replay, facts: Facts, scores: Sequence[float], account: Account) -> str:
    """Say why an alert about a signal is open, or what it lacks."""
    policy = replay.policy
    if told := _told(ALERTNAMES[number], replay, account):
        return told
    if not any(score >= ANOMALOUS_SCORE for score in scores):
        return f"no alert: none of the last {policy.open_within_windows} windows is anomalous"
    if account.explanation.state == STATES[WARMING]:
        return "no alert: a warming series opens none"
    if number == TRAFFIC and facts.value > facts.expected and not policy.traffic_rises_open:
        return "no alert: more traffic than expected opens none (alerts.traffic_rises_open)"
    if number == TRAFFIC and account.silence.quiet_ms:
        return "no alert: the service may be falling silent, which is one page and has a name of its own"
    standing = replay.standing(ALERTNAMES[number])
    counted = len(standing.evidence) if standing else 0
    return (
        f"no alert: {counted} of the last {policy.open_within_windows} windows count, where {policy.open_windows}"
        f" open one, or a single one with a score of {policy.immediate_score:g}"
    )


def _told(alertname: str, replay: _Replay, account: Account) -> str:
    """Say what is known of an alert that is open, or would be; empty when there is none."""
    policy, standing = replay.policy, replay.standing(alertname)
    for alert in account.open_alerts:
        if alert.labels["alertname"] == alertname:
            held = ", held through quick repetitions" if alert.flapping else ""
            return (
                f"{alertname} ({alert.labels['severity']}) is open since {clock(alert.starts_at_ms)}{held}; it is"
                f" resolved after {duration_text(policy.quiet_ms)} below a score of {policy.close_score:g}"
            )
    if standing is None or not (standing.held or standing.firing):
        return ""
    if standing.held:
        needed = f"; it takes a score of {standing.needed_score:.2f} now" if standing.needed_score > 1 else ""
        return f"no alert: held back, {_HELD[standing.held]}{needed}"
    return (
        "by these windows the policy opens an alert, but the alerts topic has none: the flow counted all series of the"
        " shard, and held it back as chance among them or by its budget, or has not written it yet"
    )


def clock(at_ms: int) -> str:
    """Write a time, in UTC."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"

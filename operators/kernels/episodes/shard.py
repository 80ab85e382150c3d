"""The episodes of one shard: scored windows in, alert transitions out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import numpy as np

from operators.kernels.codec import pack, unpack
from operators.kernels.episodes.config import ANOMALOUS_SCORE
from operators.kernels.episodes.incident import join
from operators.kernels.episodes.silence import SilenceWatch
from operators.kernels.episodes.suppression import (
    BUDGET,
    DISCOVERY,
    FEEDBACK,
    MAINTENANCE,
    Budget,
    HeldBack,
    discoveries,
)
from operators.kernels.episodes.track import Standing, Track
from operators.kernels.episodes.transitions import fire, resolve, series_facts
from operators.kernels.episodes.wording import ALERTNAMES, CALM, EXPIRED, SILENCE, TRAFFIC, UNKNOWN, Facts
from operators.kernels.frames import WARMING, Transition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.kernels.episodes.config import EpisodeConfig
    from operators.kernels.frames import ScoredFrame, WindowFrame

STATE_KIND: Final = "episodes"
STATE_VERSION: Final = 2

_JUST_BELOW_ONE: Final = 1 - 1e-6

_Key: TypeAlias = tuple[int, int]
"""Kind of alert (index into `ALERTNAMES`) and row of the series, or position of the service for a silence."""


class Episodes:
    """Opens, holds and resolves the alerts of one shard.

    One episode at a time for each (alertname, service, endpoint): `LatencyAnomaly`, `ErrorRatioAnomaly` and
    `TrafficAnomaly` of a series by the score of their signal, and `ServiceSilent` of a service, endpoint empty, by
    its own rhythm (`silence`). `EpisodeConfig` has the rules of opening and closing. Beyond them:

    * `starts_at_ms` is the end of the first anomalous window of the evidence that opened the episode; for silence,
      of the first window whose newest pane was empty.
    * `severity` follows from the highest score of that evidence and never changes; silence is always critical.
    * A silence is one page: while the newest pane of a service is empty, or its silence is open, none of its
      `TrafficAnomaly` opens. A fall to nothing so waits for its right name, and the refilling of the windows after
      it is no new alert. One that was open before the silence stays open.
    * A series that leaves the frame resolves its episodes in that step, and a service without series its silence.
    * A warming series opens nothing.
    * What maintenance, feedback or the budget hold back, see `suppression`, opens nothing, and is told once by
      `held_back`. It opens when it goes on and the reason is gone.
    * Alerts of one service that are open together are one incident, see `incident`.

    State is a few arrays over services and one `Track` for each series and signal that was anomalous lately, so it
    is bounded by the number of live series, each track by `open_within_windows` and `flap_opens`.

    Args:
        config: Policy.
    """

    def __init__(self, config: EpisodeConfig) -> None:
        """Start with nothing open."""
        self._config = config
        self._silence = SilenceWatch(config)
        self._budget = Budget(config.alerts_per_day, config.immediate_score)
        self._held_back: list[HeldBack] = []
        self._tracks: dict[_Key, Track] = {}
        self._needed = 1.0
        self._rows = 0
        self._end_ms: int | None = None

    @property
    def end_ms(self) -> int | None:
        """Window end of the last step; None before the first."""
        return self._end_ms

    def step(self, frame: ScoredFrame) -> list[Transition]:
        """Take in the windows of one more window end.

        Args:
            frame: Scored windows of all live series of the shard, later than the frame before. Windows that were cut
                short change nothing: what is missing in them is no silence.

        Returns:
            Transitions: first those that resolve, then those that fire, each sorted by service, endpoint and alertname.

        Raises:
            ValueError: The frame is not later than the one before, or changed its rows without `carry`.
        """
        windows = frame.windows
        self._held_back = []
        expired = self._advance(windows)
        if windows.cut_short:
            return expired
        self._silence.observe(windows)
        self._needed = self._budget.factor(self._rows, windows.window_end_ms)
        if not self._tracks and not self._silence.paused and not (frame.score >= ANOMALOUS_SCORE).any():
            return expired
        changes = expired + self._step_silence(frame) + self._step_series(frame)
        self._tracks = {key: track for key, track in self._tracks.items() if not track.is_idle()}
        changes = join(changes, self._tracks.values())
        return sorted(changes, key=lambda change: (change.status == "firing", *_order(change)))

    def held_back(self) -> list[HeldBack]:
        """Return the anomalies that would have opened an alert with the last step, each once, and why they did not."""
        return self._held_back

    def needed_score(self) -> float:
        """Return the score that an anomaly needs to open an alert, 1 within the budget."""
        return self._needed

    def standings(self, service: str, endpoint: str) -> list[Standing]:
        """Tell where the alerts of one series, and the silence of its service, stand after the last step.

        Returns:
            One for each alert that there is anything to say about, in the order of `ALERTNAMES`.
        """
        return [
            Standing(
                ALERTNAMES[kind],
                tuple(track.evidence),
                self.needed_score(),
                track.held,
                track.firing,
            )
            for (kind, _), track in sorted(self._tracks.items(), key=lambda item: item[0])
            if track.service == service and track.endpoint == ("" if kind == SILENCE else endpoint)
        ]

    def firing(self) -> list[Transition]:
        """Return what is open.

        Returns:
            The transition that opened each open episode, sorted as in `step`.
        """
        return sorted((track.firing for track in self._tracks.values() if track.firing is not None), key=_order)

    def _advance(self, windows: WindowFrame) -> list[Transition]:
        end_ms, slide_ms = windows.window_end_ms, self._config.slide_ms
        if self._end_ms is not None and end_ms <= self._end_ms:
            msg = f"window ends must rise, or an episode would be told twice; got {end_ms} after {self._end_ms}"
            raise ValueError(msg)
        if self._end_ms is not None and end_ms != self._end_ms + slide_ms:
            self._silence.lose_sight()
        rows = len(windows.service)
        resolved: list[Transition] = []
        if self._end_ms is None:
            self._silence.follow(windows, None)
        elif windows.carry is not None:
            moved_services = self._silence.follow(windows, windows.carry)
            resolved = self._follow(windows, windows.carry, moved_services)
        elif rows != self._rows:
            msg = (
                f"a frame without `carry` must keep its rows, or series would be mixed up; got {rows}, had {self._rows}"
            )
            raise ValueError(msg)
        self._rows, self._end_ms = rows, end_ms
        return resolved

    def _follow(
        self, windows: WindowFrame, carry: NDArray[np.int64], moved_services: NDArray[np.int64]
    ) -> list[Transition]:
        if not self._tracks:
            return []
        moved = np.full(self._rows, -1, np.int64)
        known = np.flatnonzero(carry >= 0)
        moved[carry[known]] = known
        tracks: dict[_Key, Track] = {}
        resolved: list[Transition] = []
        for (kind, row), track in self._tracks.items():
            place = int(moved_services[row] if kind == SILENCE else moved[row])
            if place >= 0:
                tracks[kind, place] = track
            elif track.firing is not None:
                facts = Facts(kind, track.service, track.endpoint)
                resolved.append(resolve(self._config, track, facts, EXPIRED, windows.window_end_ms))
        self._tracks = tracks
        return sorted(resolved, key=_order)

    def _step_silence(self, frame: ScoredFrame) -> list[Transition]:
        watch, end_ms = self._silence, frame.windows.window_end_ms
        scores = watch.scores(end_ms)
        for service in np.flatnonzero(scores >= ANOMALOUS_SCORE).tolist():
            if (SILENCE, service) not in self._tracks:
                self._tracks[SILENCE, service] = Track(watch.names[service], "")
        changes: list[Transition] = []
        for (kind, service), track in self._tracks.items():
            if kind != SILENCE:
                continue
            score = float(scores[service])
            track.note(self._config, end_ms, score)
            if track.firing is None and score >= ANOMALOUS_SCORE and self._is_judged(frame, service):
                facts = self._silence_facts(frame, service, score)
                starts_at_ms = watch.active_ms(service) + self._config.slide_ms
                if not self._is_held_back(track, facts, end_ms):
                    changes.append(fire(self._config, track, facts, starts_at_ms, end_ms))
            elif track.firing is not None and track.is_over(self._config, end_ms):
                facts = self._silence_facts(frame, service, score)
                changes.append(resolve(self._config, track, facts, CALM, end_ms))
        return changes

    def _is_judged(self, frame: ScoredFrame, service: int) -> bool:
        return bool((frame.state[self._silence.of_row == service] != WARMING).any())

    def _step_series(self, frame: ScoredFrame) -> list[Transition]:
        config, windows, end_ms = self._config, frame.windows, frame.windows.window_end_ms
        scores = self._scores(frame)
        self._leave_out_chance(frame, scores)
        kinds, rows = np.nonzero(scores >= ANOMALOUS_SCORE)
        for key in zip(kinds.tolist(), rows.tolist(), strict=True):
            if key not in self._tracks:
                self._tracks[key] = Track(windows.service[key[1]], windows.endpoint[key[1]])
        if not self._tracks:
            return []
        falling_silent = self._falling_silent(end_ms)
        changes: list[Transition] = []
        for (kind, row), track in self._tracks.items():
            if kind == SILENCE:
                continue
            score = float(scores[kind, row])
            track.note(config, end_ms, score)
            if track.firing is not None:
                if track.is_over(config, end_ms):
                    reason = UNKNOWN if math.isnan(score) else CALM
                    changes.append(resolve(config, track, series_facts(frame, kind, row), reason, end_ms))
            elif track.may_open(config, end_ms) and not (kind == TRAFFIC and falling_silent[row]):
                facts, starts_at_ms = series_facts(frame, kind, row), track.evidence[0][0]
                if not self._is_held_back(track, facts, end_ms):
                    changes.append(fire(config, track, facts, starts_at_ms, end_ms))
                    self._budget.spend(end_ms)
        return changes

    def _is_held_back(self, track: Track, facts: Facts, end_ms: int) -> bool:
        """Ask whether anything keeps an alert from opening, and note it when it is new."""
        config, series = self._config, f"{facts.service}|{facts.endpoint}"
        reason = ""
        if any(span.covers(series, end_ms) for span in config.maintenance):
            reason = MAINTENANCE
        elif any(word.excuses(facts, end_ms) for word in config.harmless):
            reason = FEEDBACK
        elif facts.kind != SILENCE and max(score for _, score in track.evidence) < self._needed:
            reason = BUDGET
        self._hold(track, facts.kind, reason, end_ms, facts.score)
        return bool(reason)

    def _hold(self, track: Track, kind: int, reason: str, end_ms: int, score: float) -> None:
        if reason and reason != track.held:
            name = ALERTNAMES[kind]
            self._held_back.append(HeldBack(reason, name, track.service, track.endpoint, end_ms, score))
        if reason in (MAINTENANCE, FEEDBACK):
            track.evidence = []
        track.held = reason

    def _leave_out_chance(self, frame: ScoredFrame, scores: NDArray[np.float64]) -> None:
        """Take the anomalies that come up among so many looks by chance out of the scores."""
        config, windows = self._config, frame.windows
        if config.false_discovery_ratio >= 1:
            return
        kinds, rows = np.nonzero(scores >= ANOMALOUS_SCORE)
        fresh = [
            number
            for number, key in enumerate(zip(kinds.tolist(), rows.tolist(), strict=True))
            if (key not in self._tracks or self._tracks[key].is_fresh()) and not self._is_by_rule(frame, key)
        ]
        if not fresh:
            return
        kinds, rows = kinds[fresh], rows[fresh]
        tests = len(scores) * int(np.count_nonzero(frame.state != WARMING))
        kept = discoveries(
            scores[kinds, rows], tests=tests, surprise=config.surprise, ratio=config.false_discovery_ratio
        )
        for kind, row in zip(kinds[~kept].tolist(), rows[~kept].tolist(), strict=True):
            track = self._tracks.setdefault((kind, row), Track(windows.service[row], windows.endpoint[row]))
            self._hold(track, kind, DISCOVERY, windows.window_end_ms, float(scores[kind, row]))
            scores[kind, row] = _JUST_BELOW_ONE

    @staticmethod
    def _is_by_rule(frame: ScoredFrame, key: _Key) -> bool:
        return frame.by_rule is not None and bool(frame.by_rule[key])

    def _scores(self, frame: ScoredFrame) -> NDArray[np.float64]:
        scores = frame.score.copy()
        scores[:, frame.state == WARMING] = 0.0
        if not self._config.traffic_rises_open:
            windows = frame.windows
            per_s = windows.count / ((windows.window_end_ms - windows.window_start_ms) / 1_000)
            scores[TRAFFIC, per_s > frame.expected[TRAFFIC]] = 0.0
        return scores

    def _falling_silent(self, end_ms: int) -> NDArray[np.bool_]:
        scores = self._silence.scores(end_ms)
        silent = scores > 0
        for kind, service in self._tracks:
            if kind == SILENCE and self._tracks[kind, service].firing is not None:
                silent[service] = True
        return silent[self._silence.of_row]

    def _silence_facts(self, frame: ScoredFrame, service: int, score: float) -> Facts:
        windows, watch = frame.windows, self._silence
        rows = watch.of_row == service
        length_ms = windows.window_end_ms - windows.window_start_ms
        requests = int(windows.count[rows].sum())
        expected = frame.expected[TRAFFIC, rows]
        known = expected[~np.isnan(expected)]
        return Facts(
            SILENCE,
            watch.names[service],
            "",
            value=requests / (length_ms / 1_000),
            expected=float(known.sum()) if len(known) else math.nan,
            score=score,
            requests=requests,
            length_ms=length_ms,
            silent_ms=windows.window_end_ms - watch.active_ms(service),
            usual_gap_ms=watch.usual_gap_ms(service),
            limit_ms=float(watch.limit_ms()[service]),
        )

    def to_bytes(self) -> bytes:
        """Write the state.

        Returns:
            Bytes for `from_bytes`.
        """
        watch, arrays = self._silence.state()
        tracks = [(*key, msgspec.to_builtins(track)) for key, track in self._tracks.items()]
        values = {
            "end_ms": self._end_ms,
            "rows": self._rows,
            "silence": watch,
            "tracks": tracks,
            "budget": self._budget.state(),
        }
        return pack(STATE_KIND, STATE_VERSION, values, arrays)

    @classmethod
    def from_bytes(cls, config: EpisodeConfig, data: bytes) -> Episodes:
        """Read the state.

        Args:
            config: Policy; its lengths of window and slide are those that the state was written with.
            data: What `to_bytes` wrote.

        Returns:
            Episodes that go on where the others stood.

        Raises:
            StateError: The bytes are damaged or of another kind or version.
            ValueError: The lengths of window and slide have changed.
        """
        version, values, arrays = unpack(STATE_KIND, (1, STATE_VERSION), data)
        episodes = cls(config)
        episodes._silence.restore(values["silence"], arrays)
        episodes._end_ms, episodes._rows = values["end_ms"], values["rows"]
        if version > 1:
            episodes._budget.restore(values["budget"])
        episodes._tracks = {(kind, row): _track(fields) for kind, row, fields in values["tracks"]}
        return episodes


def _order(transition: Transition) -> tuple[str, str, str]:
    labels = transition.labels
    return labels["service"], labels["endpoint"], labels["alertname"]


def _track(fields: dict[str, Any]) -> Track:
    firing = None if fields["firing"] is None else Transition(**fields["firing"])
    evidence = [(int(end_ms), float(score)) for end_ms, score in fields["evidence"]]
    return Track(**{**fields, "firing": firing, "evidence": evidence})

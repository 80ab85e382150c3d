"""Which alerts an Alertmanager is to be told of now, from what the flow has committed to its two alert topics.

Nothing here talks to anybody: records and the time go in, alerts come out.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from operators.kernels.encode import AlertRecord

RESOLVED_FOR_MS: Final = 300_000
"""So long a resolved alert is sent again: Alertmanager must have heard of it, also after a while without us."""

LOOKBACK_MS: Final = 2 * RESOLVED_FOR_MS
"""How far back the topic of all transitions is read at a start, and how long an ended episode is remembered."""

OPEN_FOR_MS: Final = 86_400_000
"""An episode that has been open for a day is one whose state was thrown away: nobody would ever resolve it."""

SETTLED_AFTER_EPOCHS: Final = 3
"""So many epochs must end before an alert of long ago is believed.

What was read in an epoch is through the whole flow, and committed, when the one after it ends; the third is for reading
the topics. An end that was read together with its beginning is known by then.
"""

TOMBSTONE_WAIT_MS: Final = 2_000
"""A tombstone alone is no news for this long: the record that says what is now mostly comes with it."""

FIRING: Final = 0
CLOSED: Final = 1
RESOLVED: Final = 2
"""How much is known of an episode: it is open; it is over; it is over, and its resolving record says what is now."""


class EpisodeId(NamedTuple):
    """What makes an episode: the hash of its labels, and its start in event time."""

    fingerprint: str
    starts_at_ms: int


class Told(NamedTuple):
    """An alert for Alertmanager.

    Attributes:
        episode: Which one.
        stage: `FIRING`, `CLOSED` or `RESOLVED`; a change is news.
        body: One item of the array that `POST /api/v2/alerts` takes.
    """

    episode: EpisodeId
    stage: int
    body: dict[str, Any]


class Standing(NamedTuple):
    """How far the flow has come whose alerts are told.

    Attributes:
        behind: Whether it has more to read than it should; None while that is not known.
        epochs: How many epochs have ended since the process started.
    """

    behind: bool | None
    epochs: float


@dataclass(slots=True)
class _Episode:
    """What is known of one episode.

    Attributes:
        stage: See `FIRING`.
        record: The latest transition read; None when only its end is known.
        written_ms: Kafka timestamp of the record that brought the stage.
        selected: Whether somebody may have been told: it was chosen for sending, or is older than this process.
        ends_at_ms: Event time of the end; None while it is open.
        told_here: Whether it was chosen for sending while it was open, by this process.
        held_since: Epochs that had ended when it was first held, as one of long ago; None while it never was.
        counted: Whether it was counted as one that was over before anybody was told.
    """

    stage: int
    record: AlertRecord | None
    written_ms: int
    selected: bool
    ends_at_ms: int | None = None
    told_here: bool = False
    held_since: float | None = None
    counted: bool = False


class AlertEpisodes:
    """The open episodes, and those that ended lately.

    Two topics tell of them, each exactly once and in its own time: the one with all transitions, and the compacted one
    whose tombstones say no more than that an episode is over. Whichever comes first counts, and what comes again
    changes nothing, so it does not matter where either is read from, as long as nothing is left out.

    Memory is bounded by the open episodes, and those that ended within `LOOKBACK_MS`. Safe to be used by threads.
    """

    def __init__(self, *, max_age_ms: int) -> None:
        """Start with nothing known.

        Args:
            max_age_ms: A firing alert whose window ended longer ago than this waits until the flow has caught up, and
                what it read is through.
        """
        self._max_age_ms = max_age_ms
        self._known: dict[EpisodeId, _Episode] = {}
        self._open_of: dict[str, EpisodeId] = {}
        self._lock = threading.Lock()
        self.held = 0
        self.stale = 0

    def take(self, record: AlertRecord, written_ms: int, *, past: bool) -> None:
        """Take in a transition.

        Args:
            record: From either topic.
            written_ms: Its Kafka timestamp.
            past: Whether it was written before this process started, so that its predecessor may have told of it.
        """
        episode = EpisodeId(record.fingerprint, record.starts_at_ms)
        with self._lock:
            known = self._known.get(episode)
            if record.status == "firing":
                self._open(episode, known, _Episode(FIRING, record, written_ms, past))
            elif known is None or known.stage < RESOLVED:
                selected, counted = (past, False) if known is None else (known.selected, known.counted)
                self._known[episode] = _Episode(
                    RESOLVED, record, written_ms, selected, record.ends_at_ms, counted=counted
                )
                self._forget_open(episode)

    def close(self, episode: EpisodeId, written_ms: int, *, past: bool) -> None:
        """Take in a tombstone.

        Args:
            episode: The one that is over.
            written_ms: Kafka timestamp of the tombstone.
            past: As in `take`.
        """
        with self._lock:
            known = self._known.get(episode)
            if known is None:
                self._known[episode] = _Episode(CLOSED, None, written_ms, past, written_ms)
            elif known.stage == FIRING:
                known.stage, known.written_ms, known.ends_at_ms = CLOSED, written_ms, written_ms
            self._forget_open(episode)

    def told(self, now_ms: int, *, horizon_ms: int, standing: Standing) -> list[Told]:
        """List what every Alertmanager is to know now.

        Args:
            now_ms: The time, which is the one thing here that the log does not decide.
            horizon_ms: How long a firing alert is to live when nobody sends it again.
            standing: How far the flow has come.

        Returns:
            Open episodes, and those that ended within `RESOLVED_FOR_MS`; of several with the same labels the latest
            alone, because they are one alert to Alertmanager, and the end of the last but one would end it.
        """
        with self._lock:
            self._prune(now_ms)
            latest: dict[str, EpisodeId] = {}
            held = 0
            for identity, episode in self._known.items():
                if episode.stage == FIRING:
                    if self._is_held(episode, now_ms, standing):
                        held += 1
                        continue
                    episode.selected = episode.told_here = True
                if episode.selected and identity >= latest.get(identity.fingerprint, identity):
                    latest[identity.fingerprint] = identity
            self.held = held
            return [
                Told(identity, episode.stage, _body(episode.record, episode.ends_at_ms, now_ms, horizon_ms))
                for identity, episode in ((identity, self._known[identity]) for identity in latest.values())
                if episode.record is not None and (episode.stage == FIRING or self._is_news(episode, now_ms))
            ]

    def _is_held(self, episode: _Episode, now_ms: int, standing: Standing) -> bool:
        """Tell whether an open episode is of so long ago that it may be over, and that not be known yet."""
        if episode.told_here or episode.record is None:
            return False
        if now_ms - episode.record.window_end_ms <= self._max_age_ms:
            return False
        if episode.held_since is None:
            episode.held_since = standing.epochs
        return standing.behind is not False or standing.epochs < episode.held_since + SETTLED_AFTER_EPOCHS

    def open(self) -> int:
        """Count the open episodes, those that are held included."""
        return len(self._open_of)

    def _open(self, identity: EpisodeId, known: _Episode | None, found: _Episode) -> None:
        if known is not None:
            known.record = known.record or found.record
            return
        older = self._open_of.get(identity.fingerprint)
        if older is not None:
            if older.starts_at_ms > identity.starts_at_ms:
                return
            # Its end was never written: the state that it belonged to was thrown away.
            del self._known[older]
        self._known[identity] = found
        self._open_of[identity.fingerprint] = identity

    def _forget_open(self, identity: EpisodeId) -> None:
        if self._open_of.get(identity.fingerprint) == identity:
            del self._open_of[identity.fingerprint]

    @staticmethod
    def _is_news(episode: _Episode, now_ms: int) -> bool:
        age_ms = now_ms - episode.written_ms
        return age_ms <= RESOLVED_FOR_MS and (episode.stage == RESOLVED or age_ms >= TOMBSTONE_WAIT_MS)

    def _prune(self, now_ms: int) -> None:
        for identity, episode in list(self._known.items()):
            age_ms = now_ms - episode.written_ms
            if age_ms > (OPEN_FOR_MS if episode.stage == FIRING else LOOKBACK_MS):
                del self._known[identity]
                self._forget_open(identity)
            elif episode.stage != FIRING and not episode.selected and episode.record is not None:
                # Over before anybody was told: counted once, and remembered without what it would have said. The other
                # topic may bring its record once more.
                self.stale += not episode.counted
                episode.record, episode.counted = None, True


def rfc3339(time_ms: int) -> str:
    """Write a time the way Alertmanager reads it.

    Args:
        time_ms: Milliseconds since the epoch.

    Returns:
        Such as `2026-11-23T09:50:17.123Z`.
    """
    return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _body(record: AlertRecord, ends_at_ms: int | None, now_ms: int, horizon_ms: int) -> dict[str, Any]:
    """Build one alert. Labels identify it and never change, the start is that of the episode."""
    # Not after now, or it would fire until then; and not before the start, which Alertmanager refuses.
    end_ms = now_ms + horizon_ms if ends_at_ms is None else max(min(ends_at_ms, now_ms), record.starts_at_ms)
    annotations = {**record.annotations, **({"flapping": "true"} if record.flapping else {})}
    return {
        "labels": {name: value for name, value in record.labels.items() if value},
        "annotations": annotations,
        "startsAt": rfc3339(record.starts_at_ms),
        "endsAt": rfc3339(end_ms),
        "generatorURL": record.annotations.get("dashboard_url", ""),
    }

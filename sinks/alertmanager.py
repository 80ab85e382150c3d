"""Tells every Alertmanager of the alerts that are open, and of those that are over, for as long as it matters.

Alertmanager remembers nothing of an alert beyond its `endsAt`, so what is open is sent again and again, with the labels
and the start that it always had. Each replica has a thread of its own: one that is down holds up neither the others
nor the flow, and is told of everything when it is back.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import ssl
import threading
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sinks.alertmanager_episodes import AlertEpisodes, EpisodeId, Standing, Told

HORIZON_RESENDS: Final = 4
"""A firing alert lives for so many intervals of sending it again, as those of Prometheus do."""

_LOG: Final = logging.getLogger("tailmark.alertmanager")
_PATH: Final = "/api/v2/alerts"
_ALERTS_IN_REQUEST: Final = 64
_LOOK_S: Final = 0.5
_FIRST_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 15.0
_LAST_ROUND_S: Final = 3.0
_OK: Final = range(200, 300)
_TOO_MANY: Final = 429
_FAULT_OF_SERVER: Final = range(500, 600)
_BODY_SHOWN: Final = 200


class UnreachableError(Exception):
    """A replica that did not take alerts, and may take them later."""


class RefusedError(Exception):
    """A replica that will not take these alerts however often they are sent."""


@dataclass(slots=True)
class ReplicaCounts:
    """How it went with one replica since the process started.

    Attributes:
        sent: Alerts that it took.
        failed: Alerts that it did not take, each time they were sent.
        succeeded_s: When it last took what was sent, seconds since the epoch; None before the first time.
    """

    sent: int = 0
    failed: int = 0
    succeeded_s: float | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one Alertmanager takes alerts, and as whom.

    Attributes:
        url: Address with an optional prefix of the path; its user part becomes basic authentication.
        timeout_s: How long a request may take.
        bearer_token: Sent as `Authorization: Bearer …`; None for none.
    """

    url: str
    timeout_s: float
    bearer_token: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Host, port and path: what may be printed."""
        parts = urlsplit(self.url)
        return parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")

    def post(self, alerts: Sequence[dict[str, Any]]) -> None:
        """Send alerts in one request.

        Args:
            alerts: Items of the array that the API takes; none of them is a question whether it listens.

        Raises:
            UnreachableError: No answer, or one that asks for patience.
            RefusedError: Any other answer.
        """
        parts = urlsplit(self.url)
        target = parts.path.rstrip("/") + _PATH + (f"?{parts.query}" if parts.query else "")
        try:
            connection = self._connection(parts)
            try:
                connection.request("POST", target, json.dumps(alerts).encode(), self._headers(parts))
                answer = connection.getresponse()
                status, said = answer.status, answer.read(_BODY_SHOWN).decode(errors="replace")
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(str(error) or type(error).__name__) from error
        if status == _TOO_MANY or status in _FAULT_OF_SERVER:
            raise UnreachableError(f"answered {status}")
        if status not in _OK:
            raise RefusedError(f"answered {status}: {' '.join(said.split())}")

    def _connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        host = parts.hostname or ""
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, parts.port, timeout=self.timeout_s, context=context)
        return http.client.HTTPConnection(host, parts.port, timeout=self.timeout_s)

    def _headers(self, parts: SplitResult) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "tailmark"}
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        elif self.bearer_token is not None:
            headers["Authorization"] = f"Bearer {self.bearer_token}"
        return headers


class Replica:
    """Keeps one Alertmanager informed, in a thread of its own."""

    def __init__(self, endpoint: Endpoint, current: Callable[[], list[Told] | None], *, resend_s: float) -> None:
        """Prepare to send.

        Args:
            endpoint: Where to.
            current: Gives what it is to know now; None while that is not known.
            resend_s: How often what is current is sent again.
        """
        self.endpoint = endpoint
        self.counts = ReplicaCounts()
        self._current = current
        self._resend_s = resend_s
        self._known: dict[EpisodeId, tuple[int, float]] = {}
        self._contact_s = float("-inf")
        self._backoff_s = 0.0
        self._not_before_s = float("-inf")
        self._complaint = ""
        self._news = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"tailmark-alerts-{endpoint.name}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wake(self) -> None:
        """Look for news at once."""
        self._news.set()

    def close(self) -> None:
        """Send what is new once more, and stop."""
        self._stopping = True
        self._news.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the last round."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            last = self._stopping
            self._news.clear()
            if time.monotonic() >= self._not_before_s:
                self._round()
            if last:
                return
            self._news.wait(_LOOK_S)

    def _round(self) -> None:
        """Send what this replica does not know yet, and what it must hear again."""
        told = self._current()
        if told is None:
            return
        now_s = time.monotonic()
        present = {alert.episode for alert in told}
        self._known = {episode: known for episode, known in self._known.items() if episode in present}
        due = iter([alert for alert in told if self._is_due(alert, now_s)])
        while chunk := list(islice(due, _ALERTS_IN_REQUEST)):
            if not self._send(chunk):
                return
        if now_s - self._contact_s >= self._resend_s:
            self._send([])

    def _is_due(self, alert: Told, now_s: float) -> bool:
        stage, sent_s = self._known.get(alert.episode, (-1, float("-inf")))
        return stage != alert.stage or now_s - sent_s >= self._resend_s

    def _send(self, alerts: list[Told]) -> bool:
        """Send alerts; tells whether it makes sense to send more."""
        now_s = time.monotonic()
        try:
            self.endpoint.post([alert.body for alert in alerts])
        except UnreachableError as error:
            self.counts.failed += len(alerts)
            self._complain(f"can't be told of alerts, and is asked again until it can: {error}")
            # It may have been restarted when it is back, and then it knows nothing.
            self._known = {}
            self._backoff_s = min(max(2 * self._backoff_s, _FIRST_BACKOFF_S), _LONGEST_BACKOFF_S, self._resend_s)
            self._not_before_s = time.monotonic() + self._backoff_s
            return False
        except RefusedError as error:
            # It took the good ones of these. The others are sent again with the next resend, not at once.
            self.counts.failed += len(alerts)
            self._complain(f"refused alerts: {error}")
        else:
            self.counts.sent += len(alerts)
            self.counts.succeeded_s = time.time()
            self._complaint, self._backoff_s = "", 0.0
        self._contact_s = now_s
        self._known |= {alert.episode: (alert.stage, now_s) for alert in alerts}
        return True

    def _complain(self, what: str) -> None:
        """Log what is wrong when it is not what was wrong before."""
        if what != self._complaint:
            self._complaint = what
            _LOG.warning("alertmanager %s %s", self.endpoint.name, what)


class AlertDelivery:
    """Delivers the alerts of a flow to all replicas until the process ends."""

    def __init__(
        self,
        episodes: AlertEpisodes,
        endpoints: Sequence[Endpoint],
        *,
        resend_s: float,
        synced: Callable[[], bool],
        standing: Callable[[], Standing],
    ) -> None:
        """Prepare to deliver.

        Args:
            episodes: What is open, and what ended lately.
            endpoints: All replicas.
            resend_s: How often what is current is sent again.
            synced: Whether `episodes` holds all that was open when the process started.
            standing: How far the flow has come.
        """
        self.episodes = episodes
        self._resend_s = resend_s
        self._synced = synced
        self._standing = standing
        self.replicas = [Replica(endpoint, self._current, resend_s=resend_s) for endpoint in endpoints]

    def start(self) -> None:
        """Begin to deliver."""
        for replica in self.replicas:
            replica.start()

    def wake(self) -> None:
        """Deliver news at once."""
        for replica in self.replicas:
            replica.wake()

    def close(self) -> None:
        """Deliver what is new once more and stop; a replica that is down is not waited for."""
        deadline = time.monotonic() + _LAST_ROUND_S
        for replica in self.replicas:
            replica.close()
        for replica in self.replicas:
            replica.join(max(0.0, deadline - time.monotonic()))

    def counts(self) -> Iterator[tuple[str, ReplicaCounts]]:
        """Tell how it goes with each replica, by its name."""
        for replica in self.replicas:
            yield replica.endpoint.name, replica.counts

    def _current(self) -> list[Told] | None:
        if not self._synced():
            return None
        horizon_ms = int(HORIZON_RESENDS * self._resend_s * 1_000)
        return self.episodes.told(int(time.time() * 1_000), horizon_ms=horizon_ms, standing=self._standing())

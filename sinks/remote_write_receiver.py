"""One connection to a receiver of remote write, and what its answers mean."""

from __future__ import annotations

import base64
import http.client
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import cramjam

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sinks.remote_write_dialects import Version
    from sinks.remote_write_requests import Batch

_CONTENT_TYPES: Final[dict[Version, str]] = {
    "1.0": "application/x-protobuf",
    "2.0": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
}
_VERSIONS: Final[dict[Version, str]] = {"1.0": "0.1.0", "2.0": "2.0.0"}
_USER_AGENT: Final = f"tailmark/{version('tailmark')}"
_WRITTEN: Final = ("X-Prometheus-Remote-Write-Samples-Written", "X-Prometheus-Remote-Write-Histograms-Written")
_MOST_TEXT: Final = 2048


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said to a request.

    Attributes:
        status: Status code of HTTP; 0 when there was no answer.
        text: Why, for a person.
        written: How many samples it says it has written; None when it does not say.
        retry_after_s: When it wants to be asked again; None when it does not say.
    """

    status: int
    text: str
    written: int | None = None
    retry_after_s: float | None = None


class Receiver:
    """Posts requests, one after the other."""

    def __init__(self, url: str, *, timeout_s: float, headers: Mapping[str, str], clock: Callable[[], float]) -> None:
        """Remember where to post to; nothing is connected before the first request.

        Args:
            url: Where to; a user part is sent as basic authentication.
            timeout_s: How long an answer may take.
            headers: Further headers; those of the protocol win over them.
            clock: Seconds since the epoch, for answers that name a time to come back.
        """
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.name = parts.netloc.rpartition("@")[2]
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._clock = clock
        self._headers = {name.lower(): value for name, value in headers.items()}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()

    def post(self, batch: Batch) -> Answer:
        """Send one request.

        Returns:
            The answer; one with status 0 when there was none, whatever the reason.
        """
        headers = {
            **self._headers,
            "content-encoding": "snappy",
            "content-type": _CONTENT_TYPES[batch.version],
            "user-agent": _USER_AGENT,
            "x-prometheus-remote-write-version": _VERSIONS[batch.version],
        }
        body = bytes(cramjam.snappy.compress_raw(batch.body()))
        try:
            self._connection.request("POST", self._path, body, headers)
            response = self._connection.getresponse()
            text = response.read(_MOST_TEXT).decode(errors="replace").strip()
            if response.read(1):
                self._connection.close()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(0, str(error) or type(error).__name__)
        said = [response.headers.get(name) for name in _WRITTEN]
        written = sum(int(value) for value in said if value is not None and value.isdecimal())
        return Answer(
            response.status,
            text,
            None if said == [None, None] else written,
            self._seconds(response.headers.get("Retry-After")),
        )

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def _seconds(self, retry_after: str | None) -> float | None:
        """Read a header `Retry-After`: seconds, or a time."""
        if retry_after is None:
            return None
        if retry_after.isdecimal():
            return float(retry_after)
        with suppress(ValueError):
            return max(0.0, parsedate_to_datetime(retry_after).timestamp() - self._clock())
        return None

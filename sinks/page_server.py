"""The HTTP server of a process: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever restarts it."""

from __future__ import annotations

import json
import socket
import threading
import time
import zlib
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Final, Protocol
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import ThreadingWSGIServer, choose_encoder, gzip_accepted

from sinks.vitals_page import largest_lag_s
from sources.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

    from operators.vitals import Vitals

READY_LAG_S: Final = 60.0
"""A flow that is further behind than this is not ready."""

_REQUEST_TIMEOUT_S: Final = 30
_FASTEST: Final = 1
_GZIP_WINDOW: Final = 31
_OPENMETRICS: Final = "application/openmetrics-text"
_JSON: Final = [("Content-Type", "application/json; charset=utf-8")]
_TEXT: Final = [("Content-Type", "text/plain; charset=utf-8")]

_Answer = tuple[str, list[tuple[str, str]], bytes]


class SeriesPage(Protocol):
    """What a flow says of its series, and a collector of whatever else it has to say."""

    def series_text(self, *, openmetrics: bool) -> str:
        """Write all series, in OpenMetrics or in the classic text format; complete lines."""

    def series(self) -> Iterator[Metric]:
        """Build the same as objects, for scrapers that want names escaped their way."""

    def collect(self) -> Iterator[Metric]:
        """Build what there is beside the series."""


class PortTakenError(OutputError):
    """The page can't be served where it should be."""


class Health:
    """Whether a process makes progress, and whether it has caught up."""

    def __init__(self, vitals: Vitals, *, stalled_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Watch a flow.

        Args:
            vitals: What the flow writes.
            stalled_after_s: An epoch, or the start, that takes longer than this means that nothing moves any more.
            clock: Seconds that never jump.
        """
        self._vitals = vitals
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._began_s = clock()

    def healthy(self) -> tuple[bool, dict[str, Any]]:
        """Tell whether epochs end, and the age of the one that is open.

        A process without a source has none of its own, and is as healthy as the others whose epochs it takes part in.
        """
        epoch_age_s = self._vitals.epoch_age_s()
        age_s = self._clock() - self._began_s if epoch_age_s is None else epoch_age_s
        moves = age_s <= self._stalled_after_s or self._only_shards()
        return moves, {"epoch_age_seconds": round(age_s, 3), "limit_seconds": self._stalled_after_s}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Tell whether state is restored and the lag is small, and how large it is."""
        moves, facts = self.healthy()
        restored = self._vitals.epoch_age_s() is not None or self._only_shards()
        lag_s = largest_lag_s(self._vitals, time.time())
        caught_up = lag_s is not None and lag_s <= READY_LAG_S
        return moves and restored and caught_up, {**facts, "restored": restored, "lag_seconds": lag_s}

    def _only_shards(self) -> bool:
        return bool(self._vitals.shards) and not self._vitals.sources


class PageServer:
    """Serves until the process ends, in daemon threads."""

    def __init__(
        self, page: SeriesPage | None, collectors: Sequence[Collector], health: Health, *, host: str, port: int
    ) -> None:
        """Listen.

        Args:
            page: Series and alerts; None for a flow that has none.
            collectors: What else is on the page.
            health: What `/healthz` and `/readyz` say.
            host: Address to listen on.
            port: Port to listen on; 0 for any that is free.

        Raises:
            PortTakenError: It can't be listened on.
        """
        self._page = page
        self._health = health
        # Never the registry of the library: it is shared with whoever else runs in the process.
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in ([page] if page is not None else []) + list(collectors):
            self._registry.register(collector)
        try:
            self._server = _Server(host, port)
        except OSError as error:
            raise PortTakenError(
                f"port {port} of {host} can't be listened on ({error.strerror}), so there would be no metrics; free "
                f"it, or set TAILMARK_PROMETHEUS__PORT to another"
            ) from error
        self._server.set_app(self._answer)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="tailmark-page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]
    ) -> list[bytes]:
        """Serve one request."""
        pages: dict[str, Callable[[dict[str, Any]], _Answer]] = {
            "/metrics": self._metrics,
            "/healthz": lambda _: _verdict(*self._health.healthy()),
            "/readyz": lambda _: _verdict(*self._health.ready()),
        }
        serve = pages.get(environ["PATH_INFO"])
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            status, headers, body = "405 Method Not Allowed", [*_TEXT, ("Allow", "GET, HEAD")], b"only GET is served\n"
        elif serve is None:
            status, headers, body = "404 Not Found", _TEXT, " ".join(["there are", *pages]).encode() + b"\n"
        else:
            status, headers, body = serve(environ)
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _metrics(self, environ: dict[str, Any]) -> _Answer:
        """Build the page in the format that the scraper prefers."""
        encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        if self._page is None:
            body = encode(self._registry)
        elif content_type.endswith(("escaping=dots", "escaping=values")):
            body = encode(_Everything(self._page, self._registry))
        else:
            # What the registry writes goes last: in OpenMetrics it ends the page.
            openmetrics = content_type.startswith(_OPENMETRICS)
            body = self._page.series_text(openmetrics=openmetrics).encode() + encode(self._registry)
        headers = [("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding")]
        if gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            squeeze = zlib.compressobj(_FASTEST, wbits=_GZIP_WINDOW)
            body = squeeze.compress(body) + squeeze.flush()
            headers.append(("Content-Encoding", "gzip"))
        return "200 OK", headers, body


class _Everything:
    """The whole page as one collector."""

    def __init__(self, page: SeriesPage, registry: CollectorRegistry) -> None:
        self._page = page
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Build all families, in the order of the page."""
        yield from self._page.series()
        yield from self._registry.collect()


class _Server(ThreadingWSGIServer):
    """The server of `prometheus_client`, for IPv6 as well, and without asking for the name of its own address."""

    def __init__(self, host: str, port: int) -> None:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        super().__init__(address[:2], _QuietHandler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """Bind; the inherited one may wait seconds for a name server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _QuietHandler(WSGIRequestHandler):
    """Answers without logging, and gives up on a client that sends nothing."""

    timeout = _REQUEST_TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of the base class
        """Say nothing: a page that is scraped each second would fill the log."""


def _verdict(good: bool, facts: dict[str, Any]) -> _Answer:  # noqa: FBT001 - it is the subject
    body = json.dumps({"ok": good, **facts}).encode() + b"\n"
    return "200 OK" if good else "503 Service Unavailable", _JSON, body

"""A receiver of remote write that records what comes and answers as it is told: for the rules of retrying alone."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import cramjam

from tests.sinks.wire_reader import ReadSeries, read_request

if TYPE_CHECKING:
    from collections.abc import Callable

V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"


@dataclass
class Told:
    """What to answer.

    Attributes:
        status: Status code.
        text: Body.
        headers: Headers; those of 2.0 that say what was written are not added by themselves.
    """

    status: int
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    """A request as it came.

    Attributes:
        path: Of the URL.
        headers: In lower case.
        series: What was in it.
    """

    path: str
    headers: dict[str, str]
    series: list[ReadSeries]

    @property
    def version(self) -> str:
        """Of the protocol."""
        return "2.0" if self.headers["content-type"] == V2 else "1.0"


class ScriptedReceiver:
    """Listens on a free port of the loopback address.

    Attributes:
        seen: All requests.
        taken: The series of the requests that were answered with success.
    """

    def __init__(self, answer: Callable[[Seen], Told]) -> None:
        self.seen: list[Seen] = []
        self.taken: list[ReadSeries] = []
        receiver = self
        read = lru_cache(maxsize=None)(read_request)  # what is sent again and again is the same to the byte

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer is one packet: the client would wait for the second

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(self.path, headers, [])
                raw = bytes(cramjam.snappy.decompress_raw(body))
                seen.series = read(seen.version, raw)
                receiver.seen.append(seen)
                told = answer(seen)
                if told.status < 300:
                    receiver.taken += seen.series
                text = told.text.encode()
                self.send_response(told.status)
                for name, value in {**told.headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/api/v1/write"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def written(seen: Seen) -> dict[str, str]:
    """The headers by which a receiver of 2.0 says that it has written everything."""
    histograms = sum(bool(one.histograms) for one in seen.series)
    return {
        "X-Prometheus-Remote-Write-Samples-Written": str(len(seen.series) - histograms),
        "X-Prometheus-Remote-Write-Histograms-Written": str(histograms),
        "X-Prometheus-Remote-Write-Exemplars-Written": "0",
    }

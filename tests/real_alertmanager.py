"""A real Alertmanager, and the telephone that it rings: a web server that records every notification."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from local.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BINARY = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
NEEDS_ALERTMANAGER = pytest.mark.skipif(BINARY is None, reason="no Alertmanager on this machine")
TIMEOUT_S = 60.0
POLL_S = 0.1

CONFIG = """\
route:
  receiver: telephone
  group_by: [alertname, service, endpoint]
  group_wait: 100ms
  group_interval: 500ms
  repeat_interval: 4h
receivers:
  - name: telephone
    webhook_configs:
      - url: {url}
        send_resolved: true
"""


class Page(NamedTuple):
    """One alert of one notification."""

    status: str
    alertname: str
    service: str
    starts_at_ms: int
    summary: str


@dataclass
class Telephone:
    """Records what a person would have been told.

    Attributes:
        pages: In the order in which they came.
    """

    pages: list[Page] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen on a free port."""
        telephone = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                telephone.pages += [page_of(alert) for alert in body["alerts"]]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def statuses(self) -> list[str]:
        return [page.status for page in self.pages]

    def wait_for(self, *statuses: str) -> list[Page]:
        """Wait until there were these notifications and no others."""
        until(lambda: self.statuses() == list(statuses), lambda: f"the telephone rang for {self.pages}")
        return self.pages

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Alertmanager:
    """One replica, which can be stopped and started again with its memory.

    Attributes:
        directory: For its configuration and its memory.
        config: Its configuration.
        web: Its configuration of TLS and users; None for neither.
        port: Where it listens.
    """

    directory: Path
    config: str
    web: dict[str, Any] | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, ready: bool = True) -> Alertmanager:
        """Start it, and wait until it is ready."""
        self.directory.mkdir(exist_ok=True)
        file = self.directory / "alertmanager.yml"
        file.write_text(self.config)
        assert BINARY is not None
        command = [BINARY, f"--config.file={file}", f"--storage.path={self.directory / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="]
        if self.web is not None:
            (self.directory / "web.yml").write_text(json.dumps(self.web))
            command.append(f"--web.config.file={self.directory / 'web.yml'}")
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        if ready:
            until(self._is_ready, (self.directory / "log").read_text)
        return self

    def stop(self) -> None:
        """End it the way that keeps its memory."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(TIMEOUT_S)
            self.process = None

    def alerts(self) -> list[dict[str, Any]]:
        """Ask for all alerts that it knows."""
        alerts: list[dict[str, Any]] = self._get("/api/v2/alerts")
        return alerts

    def post(self, alerts: list[dict[str, Any]]) -> None:
        """Send it alerts of one's own."""
        request = urllib.request.Request(
            self.url + "/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            self._get("/api/v2/status")
        except OSError:
            return False
        return True

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return json.load(answer)


def page_of(alert: dict[str, Any]) -> Page:
    """Take what matters out of an alert of a notification."""
    labels = alert["labels"]
    starts_at_ms = time_ms(alert["startsAt"])
    return Page(alert["status"], labels["alertname"], labels["service"], starts_at_ms, alert["annotations"]["summary"])


def time_ms(text: str) -> int:
    """Read a time of Alertmanager, which writes the same one in several ways."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


def until(holds: Callable[[], bool], otherwise: Callable[[], str], timeout_s: float = TIMEOUT_S) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: It did not come to hold in time.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(POLL_S)

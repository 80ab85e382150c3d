"""A real Prometheus for tests: started on a free port, fed by scraping or by remote write, asked through its API."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import time
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import IO, TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import cramjam
import pytest

from sinks.remote_write_dialects import Dialect1
from sinks.remote_write_wire import field, varint
from tests.flow_process import free_ports

if TYPE_CHECKING:
    from pathlib import Path

START_S = 60.0
FEATURES = "native-histograms,exemplar-storage"


@dataclass
class PrometheusServer:
    """One server with its data in a directory.

    Attributes:
        directory: Where its configuration and its data are.
        port: Where it listens.
        scrape: Ports of pages to scrape.
        out_of_order: How far behind its newest sample a series may be written; empty for not at all.
        features: Features to enable.
        binary: Another server than the one of this machine.
    """

    directory: Path
    port: int = attribute(default_factory=lambda: free_ports(1)[0])
    scrape: tuple[int, ...] = ()
    out_of_order: str = ""
    features: str = FEATURES
    binary: str = "prometheus"
    _process: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = None

    @property
    def write_url(self) -> str:
        """Where to write to."""
        return f"http://127.0.0.1:{self.port}/api/v1/write"

    def start(self) -> PrometheusServer:
        """Start, or start again on the same data."""
        binary = shutil.which(self.binary)
        if binary is None:
            pytest.skip(f"there is no `{self.binary}` on this machine")
        self.directory.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {"global": {"scrape_interval": "1s"}}
        if self.out_of_order:
            config["storage"] = {"tsdb": {"out_of_order_time_window": self.out_of_order}}
        targets = [f"127.0.0.1:{port}" for port in self.scrape]
        config["scrape_configs"] = [{"job_name": "tailmark", "static_configs": [{"targets": targets}]}]
        path = self.directory / "prometheus.yml"
        path.write_text(json.dumps(config), encoding="utf-8")
        command = [
            binary,
            f"--config.file={path}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--web.enable-remote-write-receiver",
            *([f"--enable-feature={self.features}"] if self.features else []),
        ]
        self._log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + START_S
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2):
                    return self
            except (URLError, OSError):
                assert self._process.poll() is None, self.said()
                assert time.monotonic() < deadline, self.said()
                time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop; what it has stays."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def said(self) -> str:
        """Give what it logged."""
        return (self.directory / "log").read_text(encoding="utf-8")

    def get(self, path: str, **parameters: str) -> Any:
        """Ask the API; returns the field `data`."""
        with urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(parameters)}", timeout=20) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str, at_ms: int | None = None) -> dict[tuple[tuple[str, str], ...], Any]:
        """Evaluate an instant query; returns value by labels, without the name."""
        at = {} if at_ms is None else {"time": f"{at_ms / 1000:.3f}"}
        found = {}
        for one in self.get("query", query=expression, **at)["result"]:
            labels = tuple(sorted((name, value) for name, value in one["metric"].items() if name != "__name__"))
            found[labels] = one["histogram"][1] if "histogram" in one else float(one["value"][1])
        return found

    def samples(self, selector: str, end_ms: int, range_ms: int) -> dict[str, list[Any]]:
        """Give every stored sample of some series, as they are: by series, in the order of time."""
        expression = f"{selector}[{range_ms}ms]"
        found = {}
        for one in self.get("query", query=expression, time=f"{end_ms / 1000:.3f}")["result"]:
            found[json.dumps(one["metric"], sort_keys=True)] = one.get("values", []) + one.get("histograms", [])
        return found


def write_sample(server: PrometheusServer, labels: dict[str, str], value: float, at_ms: int) -> None:
    """Write one sample by remote write 1.0, as somebody else might."""
    dialect = Dialect1()
    joined = b"".join(dialect.label(name, text) for name, text in sorted(labels.items()))
    sample = b"\x09" + struct.pack("<d", value) + b"\x10" + varint(at_ms)
    body = bytes(cramjam.snappy.compress_raw(field(0x0A, joined + field(0x12, sample))))
    request = Request(server.write_url, body, {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"})
    with urlopen(request, timeout=10) as answer:
        assert answer.status in {200, 204}

"""A Prometheus for measurements: that of this machine, as a process that can be killed and started again."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from benchmarks.processes import BenchmarkError
from local.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

_START_S: Final = 60.0
_OUT_OF_ORDER: Final = "2h"


class Prometheus:
    """A receiver of remote write with its data in a directory."""

    def __init__(self, directory: Path) -> None:
        """Prepare; nothing is started yet.

        Raises:
            BenchmarkError: There is no Prometheus on this machine.
        """
        found = shutil.which("prometheus")
        if found is None:
            raise BenchmarkError("there is no `prometheus` on this machine, so nothing that it has can be compared")
        self._binary = found
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def write_url(self) -> str:
        """Where to write to."""
        return f"http://127.0.0.1:{self._port}/api/v1/write"

    def start(self) -> Prometheus:
        """Start, or start again on the same data.

        Raises:
            BenchmarkError: It does not get ready.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "prometheus.yml"
        config.write_text(json.dumps({"storage": {"tsdb": {"out_of_order_time_window": _OUT_OF_ORDER}}}), "utf-8")
        self._process = subprocess.Popen(
            [
                self._binary,
                f"--config.file={config}",
                f"--storage.tsdb.path={self._directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--web.enable-remote-write-receiver",
                "--enable-feature=native-histograms,exemplar-storage",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            try:
                with urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=2):
                    return self
            except (URLError, OSError):
                time.sleep(0.05)
        raise BenchmarkError(f"prometheus was not ready within {_START_S:.0f} s")

    def kill(self) -> None:
        """End it at once; its data stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate a query now; what can't be asked has no result."""
        try:
            parameters = urlencode({"query": expression})
            with urlopen(f"http://127.0.0.1:{self._port}/api/v1/query?{parameters}", timeout=5) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return found
        except (URLError, OSError, ValueError, KeyError):
            return []

    def value(self, expression: str) -> float:
        """Give the single value of a query, 0 when there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def samples(self, selector: str, range_s: float) -> list[list[tuple[float, float]]]:
        """Give the stored samples of each series, (second, value), back to `range_s` ago."""
        found = self.query(f"{selector}[{int(range_s) + 1}s]")
        return [[(float(at), float(value)) for at, value in one["values"]] for one in found]

"""The Prometheus of `deploy/`, with its own configuration and rules, on other addresses and in quicker time."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from local.ports import free_port
from tests.deploy.compose import SERVICES
from tests.real_alertmanager import Alertmanager, until

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NEEDS_PROMETHEUS = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus on this machine")


@dataclass
class Monitoring:
    """A Prometheus that is configured as the one of compose.

    Attributes:
        directory: For its data.
        addresses: Where each `host:port` of the configuration really is.
        port: Where it listens.
    """

    directory: Path
    addresses: Mapping[str, str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def write_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1/write"

    def start(self) -> Monitoring:
        self.directory.mkdir()
        config = YAML(typ="safe").load(DEPLOY / "prometheus" / "prometheus.yml")
        config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in config["rule_files"]]
        groups = config["scrape_configs"] + config["alerting"]["alertmanagers"]
        for group in [static for one in groups for static in one["static_configs"]]:
            group["targets"] = [self.addresses.get(target, "127.0.0.1:1") for target in group["targets"]]
        file = self.directory / "prometheus.json"
        file.write_text(json.dumps(config))
        flags = [flag for flag in SERVICES["prometheus"]["command"] if not flag.startswith(("--config.", "--storage."))]
        flags += [f"--web.listen-address=127.0.0.1:{self.port}", "--rules.alert.resend-delay=1s"]
        command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={self.directory / 'data'}", *flags]
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._is_ready, (self.directory / "log").read_text)
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate a query now; returns its samples."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def get(self, path: str, **parameters: str) -> Any:
        """Ask the API; returns what it calls `data`."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2):
                return True
        except OSError:
            return False


def deployed_alertmanager(directory: Path) -> Alertmanager:
    """Give the Alertmanager of compose, not started."""
    shutil.copytree(DEPLOY / "alertmanager" / "templates", directory / "templates")
    return Alertmanager(directory, (DEPLOY / "alertmanager" / "alertmanager.yml").read_text())

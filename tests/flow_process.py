"""Run a flow as an operator does: its own processes, Bytewax's own flags, signals from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

    from tests.conftest import KafkaCluster, Topics

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 90.0


def free_ports(count: int) -> list[int]:
    """Choose ports on the loopback address that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]


@dataclass
class FlowProcess:
    """A flow as one or more processes.

    Attributes:
        env: Settings, as `TAILMARK_` variables.
        recovery: Recovery directory.
        flow: Module of the flow.
        processes: How many processes.
        interval_s: Snapshot interval.
        workers: Worker threads in each process.
        backup_s: How long snapshots are kept after newer ones replaced them.
    """

    env: Mapping[str, str]
    recovery: Path | None = None
    flow: str = "flows.anomaly"
    processes: int = 1
    interval_s: int = 1
    workers: int = 1
    backup_s: int = 0
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    said: list[IO[bytes]] = field(default_factory=list)

    def start(self) -> FlowProcess:
        """Start all processes."""
        addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(self.processes))
        for process in range(self.processes):
            command = [sys.executable, "-m", "bytewax.run", self.flow]
            if self.recovery is not None:
                command += ["-r", str(self.recovery), "-s", str(self.interval_s), "-b", str(self.backup_s)]
            if self.workers > 1:
                command += ["-w", str(self.workers)]
            if self.processes > 1:
                command += ["-i", str(process), "-a", addresses]
            environment = {**os.environ, **self.env}
            # Files, not pipes: nobody reads while it runs, and a full pipe would stop the flow.
            self.said.append(tempfile.TemporaryFile())  # noqa: SIM115 - closed by `wait`
            self.running.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=self.said[-1], stderr=self.said[-1])
            )
        return self

    def serving(self, timeout_s: float = TIMEOUT_S) -> FlowProcess:
        """Wait until the page of each process answers: from then on a signal means a clean stop."""
        deadline = time.monotonic() + timeout_s
        port = int(self.env["TAILMARK_PROMETHEUS__PORT"])
        for number in range(len(self.running)):
            while True:
                with closing(socket.socket()) as probe:
                    if probe.connect_ex(("127.0.0.1", port + 10 * number)) == 0:
                        break
                assert self.running[number].poll() is None, self.wait()
                assert time.monotonic() < deadline, "the page does not answer"
                time.sleep(0.05)
        return self

    def wait(self, timeout_s: float = TIMEOUT_S) -> tuple[list[int], str]:
        """Wait for the end; returns the exit codes and what was written to stdout and stderr."""
        deadline = time.monotonic() + timeout_s
        try:
            for process in self.running:
                process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the flow did not end in {timeout_s:.0f} s; it said: {self.output()}")
        finally:
            self.kill()
        codes, output = [process.returncode for process in self.running], self.output()
        for said in self.said:
            said.close()
        self.running, self.said = [], []
        return codes, output

    def output(self) -> str:
        """Give what all processes have written so far."""
        texts = []
        for said in self.said:
            length = os.fstat(said.fileno()).st_size
            texts.append(os.pread(said.fileno(), length, 0).decode(errors="replace"))
        return "".join(texts)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes."""
        for process in self.running:
            process.send_signal(number)

    def kill(self) -> None:
        """End whatever still runs."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()

    def run(self, timeout_s: float = TIMEOUT_S) -> tuple[list[int], str]:
        """Start and wait for the end."""
        return self.start().wait(timeout_s)


def settings_for(kafka: KafkaCluster, topics: Topics, **more: str) -> dict[str, str]:
    """Settings of a flow on the topics of a test; `more` are further keys without the prefix."""
    names = {
        "EVENTS": topics.events,
        "WINDOWS": topics.windows,
        "ALERTS": topics.alerts,
        "ALERTS_STATE": topics.alerts_state,
        "DEAD_LETTER": topics.dead_letter,
        "TRUTH": topics.truth,
    }
    env = {f"TAILMARK_KAFKA__TOPICS__{name}": topic for name, topic in names.items()}
    env["TAILMARK_KAFKA__BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers
    env["TAILMARK_KAFKA__GROUP_ID"] = f"{topics.prefix}-group"
    env["TAILMARK_PROMETHEUS__PORT"] = str(free_ports(1)[0])
    return env | {f"TAILMARK_{key}": value for key, value in more.items()}

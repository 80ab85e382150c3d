"""Clusters of small programs in place of flows: they serve a page, and do what a test tells them to."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.supervision.cluster import Plan
from tests.flow_process import free_ports

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = """
import json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

number, port, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
start = len(list(folder.glob(f"start-{number}-*")))
(folder / f"start-{number}-{start}").write_text(str(os.getpid()))
facts = {"epoch_age_seconds": 0.0, "restored": True}

class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(facts).encode())

    def log_message(self, *_):
        pass

def serve():
    threading.Thread(target=HTTPServer(("127.0.0.1", port), Page).serve_forever, daemon=True).start()

def on_term(code):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))

def wait_for(number):
    while not list(folder.glob(f"start-{number}-*")):
        time.sleep(0.01)

def sleep():
    # In pieces: a signal may reach the other thread, and is then handled when this one wakes.
    while True:
        time.sleep(0.02)

"""


@dataclass(frozen=True)
class ScriptedPlan(Plan):
    """Runs a program in place of a flow.

    Attributes:
        script: Python; may use `number`, `start` (0 for the first), `facts`, `serve`, `on_term`,
            `wait_for` (the first start of a process) and `sleep`.
        folder: Gets a file for each start of each process.
    """

    script: str = ""
    folder: Path = Path()

    def command(self, process: int, addresses: Sequence[str]) -> list[str]:
        port = str(self.pages[process][1])
        return [sys.executable, "-c", PROGRAM + self.script, str(process), port, str(self.folder)]


def scripted(folder: Path, script: str, processes: int = 1) -> ScriptedPlan:
    """Plan a cluster of programs."""
    return ScriptedPlan(
        flow="scripted",
        processes=processes,
        recovery=folder,
        snapshot_interval_s=1,
        backup_interval_s=0,
        pages=[("127.0.0.1", port) for port in free_ports(processes)],
        script=script,
        folder=folder,
    )


def starts(folder: Path, process: int = 0) -> int:
    """Count how often a process was started."""
    return len(list(folder.glob(f"start-{process}-*")))


def pids(folder: Path) -> list[int]:
    """List all processes that were ever started."""
    return [int(path.read_text() or 0) for path in sorted(folder.glob("start-*"))]

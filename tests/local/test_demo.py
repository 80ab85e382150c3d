"""The demo as people start it: real Kafka, real flow, real simulator, watched from outside."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient

from local.leash import started_ticks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.conftest import KafkaCluster

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "local", "demo"]
START_AND_STOP_S = 90
WAIT_S = 60


def environment(directory: Path, servers: str | None) -> dict[str, str]:
    """The environment of a demo that keeps its files in `directory`; without `servers` it embeds a Kafka."""
    left_out = ("KAFKA_BOOTSTRAP_SERVERS", "COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    given = {} if servers is None else {"KAFKA_BOOTSTRAP_SERVERS": servers}
    return {**kept, **given, "TMPDIR": str(directory), "TERM": "xterm-256color"}


@contextmanager
def demo(
    arguments: Sequence[str], directory: Path, servers: str | None, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """A demo that runs while the context lasts."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=environment(directory, servers),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def children(directory: Path) -> dict[str, int]:
    """Process ids of the running children of the demo that keeps its files in `directory`, by name."""
    found = {}
    for path in directory.glob("tailmark-demo-*/**/*.pid"):
        for name, (pid, started) in json.loads(path.read_text()).items():
            if started_ticks(pid) == started:
                found[f"{path.stem} {name}"] = pid
    return found


def wait_for_children(directory: Path, count: int) -> dict[str, int]:
    """Wait until so many processes of a demo run."""
    deadline_s = time.monotonic() + WAIT_S
    while len(children(directory)) < count and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return children(directory)


def count_of(what: str, text: str) -> int:
    """The number before a word of the summary."""
    found = re.search(rf"([\d,]+) {what}", text)
    assert found is not None, text
    return int(found[1].replace(",", ""))


@pytest.mark.slow
def test_demo_finds_its_incidents_and_pages_nobody_for_the_surge(tmp_path: Path) -> None:
    with demo(["--duration", "32"], tmp_path, servers=None) as process:
        written, said = process.communicate(timeout=32 + START_AND_STOP_S)
    assert process.returncode == 0, said
    summary = " ".join(written[written.index("\ntime ") :].split())
    assert count_of("sent", summary) > 100_000
    assert count_of("closed", summary) > 1_000
    assert count_of("fired", summary) >= 4
    assert "dead letters" in summary
    for kind, service in (("latency step", "search"), ("error burst", "accounts"), ("cascade", "payments")):
        assert re.search(rf"{kind} {service}\S* .*?yes \d+ s \(\d slides?\)", summary), summary
    assert re.search(r"surge .* no no page", summary), summary
    assert "0 missed · 0 false alerts · surge: no page" in summary
    assert "starting Apache Kafka" in said
    assert "event time" in written[: written.index("\ntime ")], "lines tell how it goes where there is no screen"
    assert children(tmp_path) == {}
    assert {path.name for path in tmp_path.glob("tailmark-demo-*/*")} == {"flow.log", "simulator.log", "kafka"}


def test_ctrl_c_ends_the_screen_and_leaves_nothing_on_a_given_kafka(tmp_path: Path, kafka: KafkaCluster) -> None:
    terminal, screen = os.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen = ""
    with demo([], tmp_path, kafka.bootstrap_servers, stdout=screen) as process:
        os.close(screen)
        deadline_s = time.monotonic() + WAIT_S
        while "of 30 windows" not in seen and time.monotonic() < deadline_s:
            seen += os.read(terminal, 65_536).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        seen += read_to_end(terminal)
        said = "" if process.stderr is None else process.stderr.read()
        assert process.wait(WAIT_S) == 0, said
    assert "\x1b[?1049h" in seen, "it draws on a screen of its own"
    assert "\x1b[?1049l" in seen, "and gives the terminal back"
    assert "incidents really running: 0" in seen
    summary = seen[seen.index("\x1b[?1049l") :]
    assert count_of("closed", summary) > 0
    assert children(tmp_path) == {}
    prefix = said[said.index("tailmark-demo-") :].partition(".")[0]
    admin = AdminClient({**kafka.client_options})
    groups = admin.list_consumer_groups().result().valid
    assert [name for name in admin.list_topics(timeout=WAIT_S).topics if name.startswith(prefix)] == []
    assert [group.group_id for group in groups if prefix in group.group_id] == []


def read_to_end(terminal: int) -> str:
    """Read what a program writes to a terminal until it ends."""
    parts = []
    try:
        while part := os.read(terminal, 65_536):
            parts.append(part)
    except OSError:  # what Linux says when nobody can write any more
        pass
    finally:
        os.close(terminal)
    return b"".join(parts).decode(errors="replace")


def test_a_dead_child_ends_the_demo_with_its_last_words(tmp_path: Path, kafka: KafkaCluster) -> None:
    with demo([], tmp_path, kafka.bootstrap_servers) as process:
        running = wait_for_children(tmp_path, count=4)
        os.kill(running["simulator broker"], signal.SIGKILL)
        _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    log = next(tmp_path.glob("tailmark-demo-*/simulator.log"))
    assert f"error: the simulator ended by itself, killed by signal 9; its log is {log}" in said
    assert "Traceback" not in said
    assert children(tmp_path) == {}


def test_a_dead_broker_ends_the_demo_with_the_place_of_its_log(tmp_path: Path) -> None:
    with demo([], tmp_path, servers=None) as process:
        running = wait_for_children(tmp_path, count=6)
        os.kill(running["broker broker"], signal.SIGKILL)
        _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    # The flow may notice before the demo does that its broker is gone; the last lines of a log then follow the reason.
    assert any(line.startswith("error: ") for line in said.splitlines())
    assert ".log" in said
    assert "Traceback" not in said
    assert children(tmp_path) == {}


def test_nothing_outlives_a_demo_that_is_killed(tmp_path: Path, kafka: KafkaCluster) -> None:
    with demo([], tmp_path, kafka.bootstrap_servers) as process:
        assert len(wait_for_children(tmp_path, count=4)) == 4
        process.kill()
        process.wait()
        deadline_s = time.monotonic() + WAIT_S
        while children(tmp_path) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert children(tmp_path) == {}


def test_a_signal_while_it_starts_ends_it_cleanly(tmp_path: Path, kafka: KafkaCluster) -> None:
    with demo([], tmp_path, kafka.bootstrap_servers) as process:
        wait_for_children(tmp_path, count=1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert children(tmp_path) == {}


@pytest.mark.parametrize(
    ("servers", "code", "reason"),
    [
        ("127.0.0.1:1", 1, "error: the Kafka at 127.0.0.1:1 can't be used for the demo: "),
        ("127.0.0.1:none", 2, "error: KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:none: "),
    ],
)
def test_a_kafka_that_is_not_there_is_told_in_one_line(tmp_path: Path, servers: str, code: int, reason: str) -> None:
    with demo([], tmp_path, servers) as process:
        written, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == code
    assert written == ""
    assert said.splitlines()[-1].startswith(reason)
    assert "Traceback" not in said

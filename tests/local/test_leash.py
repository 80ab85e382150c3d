"""Whatever happens to the program that started a broker, no broker stays behind."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from local.broker import _read_pid_file
from local.kafka import EmbeddedKafka, stop_leftovers
from local.leash import started_ticks
from tests.kafka_log import create_topic, read_topic

WAIT_S = 60.0
OWNER = """
import sys, time
from pathlib import Path
from local.kafka import EmbeddedKafka
kafka = EmbeddedKafka(Path(sys.argv[1])).start()
print(kafka.pid(), flush=True)
time.sleep(600)
"""


@contextmanager
def owner_of_broker(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program that has started a broker, and the broker's process id."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(data_dir)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        yield owner, int(owner.stdout.readline())
    finally:
        owner.kill()
        owner.wait()
        stop_leftovers(data_dir)


def is_soon_gone(pid: int) -> bool:
    deadline = time.monotonic() + WAIT_S
    while started_ticks(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    return started_ticks(pid) is None


def test_killed_owner_leaves_no_broker(tmp_path: Path) -> None:
    with owner_of_broker(tmp_path / "kafka") as (owner, broker_pid):
        owner.kill()
        assert is_soon_gone(broker_pid)


def test_broker_left_behind_is_ended_by_the_next_start(
    tmp_path: Path, start_kafka: Callable[..., EmbeddedKafka]
) -> None:
    with owner_of_broker(tmp_path / "kafka") as (owner, broker_pid):
        processes = _read_pid_file(tmp_path / "kafka" / "node-1" / "broker.pid")
        assert processes is not None
        subprocess.run(["kill", "-STOP", str(processes["leash"][0])], check=True)  # so that it can't clean up
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert started_ticks(broker_pid) is not None

        kafka = start_kafka("kafka")
        assert started_ticks(broker_pid) is None
        create_topic(kafka.client_options, "after")
        assert read_topic(kafka.client_options, "after") == []


def test_killed_leash_takes_its_broker_along(start_kafka: Callable[..., EmbeddedKafka], tmp_path: Path) -> None:
    kafka = start_kafka()
    processes = _read_pid_file(tmp_path / "kafka" / "node-1" / "broker.pid")
    assert processes is not None
    broker_pid = kafka.pid()
    subprocess.run(["kill", "-KILL", str(processes["leash"][0])], check=True)
    assert is_soon_gone(broker_pid)


def test_pid_file_of_another_process_harms_nobody(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as innocent:
        node = tmp_path / "kafka" / "node-1"
        node.mkdir(parents=True)
        (node / "broker.pid").write_text(f'{{"broker": [{innocent.pid}, 1]}}', encoding="utf-8")
        assert stop_leftovers(tmp_path / "kafka") == 0
        assert innocent.poll() is None
        innocent.kill()

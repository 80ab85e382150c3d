"""`python -m local`: one line when ready, one line when it can't, and the right exit code."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from confluent_kafka.admin import AdminClient

COMMAND = [sys.executable, "-m", "local"]
DISCARD_PORT = 9  # nothing listens there
TIMEOUT_S = 120.0


def test_foreground_broker_says_when_it_is_ready_and_stops_on_ctrl_c(tmp_path: Path, free_port: int) -> None:
    command = [*COMMAND, "kafka", "--port", str(free_port), "--data-dir", str(tmp_path / "kafka")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        ready = running.stdout.readline()
        assert f"ready at 127.0.0.1:{free_port}" in ready
        assert str(tmp_path / "kafka" / "node-1" / "kafka.log") in ready
        brokers = AdminClient({"bootstrap.servers": f"127.0.0.1:{free_port}"}).list_topics(timeout=10).brokers
        assert brokers.keys() == {1}
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate(timeout=TIMEOUT_S)
    assert (running.returncode, rest, errors) == (0, "", "")


def test_secured_broker_writes_the_flows_login_and_stops_on_sigterm(tmp_path: Path) -> None:
    command = [*COMMAND, "kafka", "--port", "0", "--data-dir", str(tmp_path / "kafka"), "--secure"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        ready = running.stdout.readline()
        login = tmp_path / "kafka" / "client.env"
        assert str(login) in ready
        stated = dict(line.removeprefix("export ").split("=", 1) for line in login.read_text().splitlines())
        options = {
            name.removeprefix("TAILMARK_KAFKA__").removeprefix("OPTIONS__").lower().replace("_", "."): value.strip("'")
            for name, value in stated.items()
        }
        assert AdminClient(dict(options)).list_topics(timeout=10).brokers.keys() == {1}
        assert login.stat().st_mode & 0o077 == 0
        running.terminate()
        assert running.wait(TIMEOUT_S) == 0


def test_signal_during_the_start_ends_it_too(tmp_path: Path) -> None:
    data_dir = tmp_path / "kafka"
    command = [*COMMAND, "kafka", "--port", "0", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while not (data_dir / "cluster.json").exists():
            assert running.poll() is None
        running.terminate()
        output, errors = running.communicate(timeout=TIMEOUT_S)
    assert (running.returncode, output, errors) == (0, "", "")
    assert not list(data_dir.glob("node-*/broker.pid"))


def test_taken_port_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "kafka", "--port", port, "--data-dir", str(tmp_path / "kafka")],
            capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: port {port} is taken by another program; stop it or choose another `--port`"
    ]


def test_without_network_and_cache_one_line_says_what_to_do(tmp_path: Path) -> None:
    proxy = f"http://127.0.0.1:{DISCARD_PORT}"
    offline = {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": ""}
    done = subprocess.run(
        [*COMMAND, "kafka", "--data-dir", str(tmp_path / "kafka")],
        capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        env={**os.environ, **offline, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 1
    announced, error = done.stderr.splitlines()
    assert announced.startswith("downloading Apache Kafka")
    assert "cannot download Apache Kafka" in error
    for remedy in ("python -m local fetch", "--repository", str(tmp_path / "cache"), "KAFKA_BOOTSTRAP_SERVERS"):
        assert remedy in error
    assert not (tmp_path / "kafka").exists()

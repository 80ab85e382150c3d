"""One broker of an embedded Apache Kafka: its files, its process, and what can be done to it."""

import contextlib
import json
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local import leash
from local.errors import EmbeddedKafkaError
from local.runtime import Runtime

STOP_S = 15.0  # how long a broker may take for a clean stop before it is killed
LEASH_MARGIN_S = 10.0
FORMAT_TIMEOUT_S = 120.0
# Kafka prints its whole configuration, some 1,500 lines, at every start: those loggers only warn.
LOG_CONFIG = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ${sys:kafka.log}
appender.file.filePattern = ${sys:kafka.log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
appender.file.policies.type = SizeBasedTriggeringPolicy
appender.file.policies.size = 32MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
logger.values.name = org.apache.kafka.common.config
logger.values.level = warn
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""
CAUSE = re.compile(r" (?:ERROR|FATAL) |Exception|Error:")
THROWN = re.compile(r'^(?:Exception in thread "main" |Caused by: )(?:[\w.$]+: )?')


@dataclass(frozen=True)
class NodeFiles:
    """Where one broker keeps its files.

    Attributes:
        directory: Holds all the others.
    """

    directory: Path

    @property
    def properties(self) -> Path:
        """The broker's configuration, rewritten at each start."""
        return self.directory / "server.properties"

    @property
    def data(self) -> Path:
        """The partitions and the metadata log."""
        return self.directory / "data"

    @property
    def meta(self) -> Path:
        """Says which cluster and node the data belongs to; formatting writes it last."""
        return self.data / "meta.properties"

    @property
    def spare_meta(self) -> Path:
        """A copy of `meta`: a new one would get a new directory id, for which no partition is assigned."""
        return self.directory / "meta.properties"

    @property
    def log(self) -> Path:
        """What the broker logs; rolled at 32 MB, two older files are kept."""
        return self.directory / "kafka.log"

    @property
    def console(self) -> Path:
        """What the Java machine prints by itself, when it crashes for example."""
        return self.directory / "console.log"

    @property
    def pid_file(self) -> Path:
        """Names the running broker and its leash."""
        return self.directory / "broker.pid"

    @property
    def formatted(self) -> bool:
        """Whether formatting got to its end."""
        with contextlib.suppress(FileNotFoundError):
            stated = self.meta.read_text(encoding="utf-8", errors="replace")
            return all(f"\n{key}=" in f"\n{stated}" for key in ("cluster.id", "node.id", "directory.id", "version"))
        return False


class Broker:
    """The process of one broker.

    Args:
        node_id: 1 and up.
        files: Where it keeps its files.
        runtime: How to start Java.
        heap_mib: Upper limit of the Java heap.
    """

    def __init__(self, node_id: int, files: NodeFiles, runtime: Runtime, *, heap_mib: int) -> None:
        """See the class."""
        self.node_id = node_id
        self.files = files
        self._runtime = runtime
        self._heap_mib = heap_mib
        self._leash: subprocess.Popen[bytes] | None = None

    def write_properties(self, properties: Mapping[str, str]) -> None:
        """Write the configuration for the next start; only its owner may read it."""
        self.files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [f"{key}={value}\n" for key, value in properties.items()]
        self.files.properties.touch(mode=0o600)
        self.files.properties.write_text("".join(lines), encoding="utf-8")
        (self.files.directory / "log4j2.properties").write_text(LOG_CONFIG, encoding="utf-8")

    def format(self, cluster_id: str, scram_users: list[str]) -> None:
        """Give the data directory its identity; what half a format left there before is dropped.

        Raises:
            EmbeddedKafkaError: Apache Kafka's own tool refused.
        """
        shutil.rmtree(self.files.data, ignore_errors=True)
        added = [part for user in scram_users for part in ("--add-scram", user)]
        command = self._command(
            "kafka.tools.StorageTool",
            *(
                "format",
                "--cluster-id",
                cluster_id,
                "--config",
                str(self.files.properties),
                *added,
            ),
        )
        done = subprocess.run(  # noqa: S603 - no shell, and nothing of it comes from outside
            command, capture_output=True, text=True, check=False, timeout=FORMAT_TIMEOUT_S
        )
        if done.returncode != 0:
            said = [*done.stdout.splitlines(), *done.stderr.splitlines()]
            raise EmbeddedKafkaError(f"cannot format {self.files.data}: {_most_telling(said)}")
        shutil.copy(self.files.meta, self.files.spare_meta)

    def format_like(self, formatted: NodeFiles) -> None:
        """Format as a copy of another broker's fresh data directory, which costs no start of a Java machine.

        What the format tool writes is the same for every broker of a cluster, except for two ids.
        """
        shutil.rmtree(self.files.data, ignore_errors=True)
        shutil.copytree(formatted.data, self.files.data)
        stated = formatted.meta.read_text(encoding="utf-8")
        stated = re.sub(r"(?m)^node\.id=.*$", f"node.id={self.node_id}", stated)
        stated = re.sub(r"(?m)^directory\.id=.*$", f"directory.id={random_kafka_id()}", stated)
        self.files.meta.write_text(stated, encoding="utf-8")
        shutil.copy(self.files.meta, self.files.spare_meta)

    def restore_identity(self) -> None:
        """Put back the identity of a data directory that lost it, and only it.

        Raises:
            EmbeddedKafkaError: The copy is lost, too.
        """
        if self.files.formatted:
            return
        try:
            shutil.copy(self.files.spare_meta, self.files.meta)
        except OSError as error:
            message = f"{self.files.data} lost its identity and cannot be used; delete {self.files.directory.parent}"
            raise EmbeddedKafkaError(message) from error

    def start(self, owner_pid: int, stop_s: float = STOP_S) -> None:
        """Start the process and return at once; it ends when the process `owner_pid` ends."""
        for file in (self.files.log, self.files.console):
            file.unlink(missing_ok=True)
        owner = [str(owner_pid), str(leash.started_ticks(owner_pid))]
        command = self._command("kafka.Kafka", str(self.files.properties))
        leashed = [sys.executable, "-I", "-S", leash.__file__, *owner, str(self.files.pid_file), str(stop_s), *command]
        with self.files.console.open("wb") as console:
            # A session of its own: Ctrl-C in the terminal must reach the flows first, which still need the broker.
            self._leash = subprocess.Popen(  # noqa: S603 - no shell, and nothing of it comes from outside
                leashed, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
            )

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._leash is not None and self._leash.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the Java machine.

        Raises:
            EmbeddedKafkaError: It does not run.
        """
        found = _read_pid_file(self.files.pid_file)
        if not self.running or found is None:
            message = f"broker {self.node_id} does not run"
            raise EmbeddedKafkaError(message)
        return found["broker"][0]

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the Java machine.

        Raises:
            EmbeddedKafkaError: It does not run.
        """
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would, and wait until it is gone."""
        self.send_signal(signal.SIGKILL)
        self._wait(LEASH_MARGIN_S)

    def request_stop(self) -> None:
        """Ask it to stop cleanly; returns at once."""
        if self._leash is not None and self.running:
            self._leash.terminate()

    def wait_stopped(self, stop_s: float = STOP_S) -> None:
        """Wait for the end after `request_stop`; the leash kills a broker that takes longer than `stop_s`."""
        self._wait(stop_s + LEASH_MARGIN_S)

    def end_now(self) -> None:
        """End it at once, started or still starting; harmless when it does not run."""
        stop_leftover(self.files)
        if self._leash is not None:
            self._leash.kill()  # one that has not written its pid file yet; the kernel ends what it started
            self._leash.wait()

    def failure(self) -> str:
        """Return the most telling line of the logs of a broker that ended by itself."""
        return _most_telling([line for file in (self.files.console, self.files.log) for line in _tail(file)])

    def port_was_taken(self) -> bool:
        """Whether it ended because another program had taken one of its ports."""
        return any("Address already in use" in line for line in _tail(self.files.log))

    def _wait(self, timeout_s: float) -> None:
        if self._leash is None:
            return
        try:
            self._leash.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.end_now()

    def _command(self, main_class: str, *arguments: str) -> list[str]:
        logging = self.files.directory / "log4j2.properties"
        options = (
            f"-Xmx{self._heap_mib}m",
            f"-Dlog4j2.configurationFile=file:{logging}",
            f"-Dkafka.log={self.files.log}",
        )
        return self._runtime.command(main_class, *arguments, options=options)


def random_kafka_id() -> str:
    """Return an id as Kafka makes them: 128 random bits as 22 characters that do not start with a dash."""
    return "k" + urlsafe_b64encode(secrets.token_bytes(16)).decode("ascii")[1:22]


def stop_leftover(files: NodeFiles) -> bool:
    """Kill a broker that an earlier run left behind.

    The pid file alone proves nothing after a crash or a reboot: the process must have started when the file says.

    Returns:
        Whether there was one.
    """
    found = _read_pid_file(files.pid_file)
    if found is None:
        return False
    alive = [(pid, started) for pid, started in found.values() if leash.started_ticks(pid) == started]
    for pid, _ in alive:  # the leash first: it would report the broker's end to nobody
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid, started in alive:
        _wait_gone(pid, started)
    files.pid_file.unlink(missing_ok=True)
    return bool(alive)


def _wait_gone(pid: int, started: int) -> None:
    """Wait until a killed process has given back its files and ports."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if leash.started_ticks(pid) == started:
                select.select([descriptor], [], [], LEASH_MARGIN_S)
        finally:
            os.close(descriptor)


def _read_pid_file(path: Path) -> dict[str, tuple[int, int]] | None:
    """Return (pid, start in ticks) of "leash" and "broker", or None where there is no whole pid file."""
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        return {name: (int(pid), int(started)) for name, (pid, started) in stated.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def _most_telling(lines: list[str]) -> str:
    """Return the last line that looks like a cause, or the last one; lines of stack traces tell nothing."""
    said = [line for line in lines if line.strip() and not line.startswith("\t")]
    causes = [line for line in said if CAUSE.search(line)]
    return THROWN.sub("", (causes or said or ["it printed nothing"])[-1].strip())


def _tail(path: Path, lines: int = 200) -> list[str]:
    """Return the last lines of a log that may not exist."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []

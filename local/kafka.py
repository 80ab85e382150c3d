"""An embedded Apache Kafka: the real broker on a Java runtime from a wheel, one or several, for the demo and for tests.

with EmbeddedKafka(Path("data")) as kafka:
    producer = Producer(kafka.client_options)
"""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from local import configuration, security
from local.broker import STOP_S, Broker, stop_leftover
from local.data_dir import DataDir, Identity
from local.errors import EmbeddedKafkaError
from local.ports import HOST, free_port, is_free, is_open
from local.runtime import Runtime, default_cache_dir, fetch
from local.security import Scram
from local.tls import make_tls_files

START_S = 90.0
START_TRIES = 3
POLL_S = 0.02
METADATA_TIMEOUT_S = 2.0
MAX_BROKERS = 9
HIGHEST_PORT = 65_535


class EmbeddedKafka:
    """A cluster of Apache Kafka brokers on this machine, each broker also a controller.

    It ends with the process that started it, however that ends. Records stay in `data_dir` for the next start.

    Args:
        data_dir: Where everything lies, logs in `node-<n>/kafka.log`; used by one process at a time.
        port: Port of the first broker on the loopback address, the others follow; 0 chooses free ports.
        brokers: How many. From three, every topic that does not say otherwise has three replicas of which two must
            confirm.
        security: None for plaintext, else TLS with SASL/SCRAM-SHA-512.
        properties: Broker properties on top of ours.
        heap_mib: Upper limit of each broker's Java heap.
        owner_pid: The brokers end when this process ends; None means this one.
        runtime: Java and the jars; None fetches them if need be.
        stop_s: How long a clean stop may take before the broker is killed.

    Attributes:
        bootstrap_servers: Where clients connect, once started.
        client_options: The same with all that security asks for, as librdkafka wants it.

    Raises:
        ValueError: An argument is impossible.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        brokers: int = 1,
        security: Scram | None = None,
        properties: Mapping[str, str] | None = None,
        heap_mib: int = 512,
        owner_pid: int | None = None,
        runtime: Runtime | None = None,
        stop_s: float = STOP_S,
    ) -> None:
        """See the class."""
        if not 1 <= brokers <= MAX_BROKERS:
            message = f"`brokers` must be from 1 to {MAX_BROKERS}; got {brokers}"
            raise ValueError(message)
        if not 0 <= port <= HIGHEST_PORT - brokers:
            message = f"`port` must leave room for {brokers} ports up to {HIGHEST_PORT}; got {port}"
            raise ValueError(message)
        self.bootstrap_servers = ""
        self.client_options: dict[str, str] = {}
        self._data_dir = DataDir(data_dir)
        self._first_port = port
        self._size = brokers
        self._security = security
        self._properties = dict(properties or {})
        self._heap_mib = heap_mib
        self._owner_pid = os.getpid() if owner_pid is None else owner_pid
        self._runtime = runtime
        self._stop_s = stop_s
        self._ports: dict[int, int] = {}
        self._brokers: dict[int, Broker] = {}
        self._expected: set[int] = set()

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> Self:
        """Start every broker and return once clients can use them all.

        Raises:
            EmbeddedKafkaError: The jars cannot be fetched, a port is taken, the directory is in use, or Kafka refuses.
        """
        runtime = self._runtime or fetch(default_cache_dir(), repository=None, say=lambda _: None)
        self._data_dir.acquire()
        try:
            for files in self._data_dir.existing_nodes():
                stop_leftover(files)
            identity = self._data_dir.open_identity(self._size, self._security)
            self._security = identity.security
            self._start_all(runtime, identity)
        except BaseException:
            self.stop(clean=False)
            raise
        return self

    def stop(self, *, clean: bool = True) -> None:
        """Stop every broker; harmless when nothing runs.

        Args:
            clean: False kills them at once, which costs a recovery of the logs at the next start.
        """
        for broker in self._brokers.values():
            if clean:
                broker.request_stop()
            else:
                broker.end_now()
        for broker in self._brokers.values():
            broker.wait_stopped(self._stop_s)
        self._expected.clear()
        self._data_dir.release()

    def log_path(self, broker: int = 1) -> Path:
        """Return the log of one broker (1 and up)."""
        return self._data_dir.node(broker).log

    def pid(self, broker: int = 1) -> int:
        """Return the process id of one broker's Java machine.

        Raises:
            EmbeddedKafkaError: It does not run.
        """
        return self._running(broker).pid

    def kill(self, broker: int = 1) -> None:
        """End one broker with SIGKILL, as a power cut would; `start_broker` brings it back."""
        self._expected.discard(broker)
        self._running(broker).kill()

    def freeze(self, broker: int = 1) -> None:
        """Halt one broker with SIGSTOP: it keeps its port and its connections and answers nothing."""
        self._running(broker).send_signal(signal.SIGSTOP)

    def thaw(self, broker: int = 1) -> None:
        """Let a frozen broker go on."""
        self._running(broker).send_signal(signal.SIGCONT)

    def stop_broker(self, broker: int = 1) -> None:
        """Stop one broker cleanly."""
        self._expected.discard(broker)
        stopping = self._running(broker)
        stopping.request_stop()
        stopping.wait_stopped(self._stop_s)

    def start_broker(self, broker: int = 1) -> None:
        """Start one broker that was stopped or killed, on its old port, and wait until clients can use it.

        Raises:
            EmbeddedKafkaError: It runs already, or does not start.
        """
        starting = self._broker(broker)
        if starting.running:
            message = f"broker {broker} runs already"
            raise EmbeddedKafkaError(message)
        starting.start(self._owner_pid, self._stop_s)
        self._expected.add(broker)
        self._wait_ready([starting])

    def restart(self, broker: int = 1) -> None:
        """Stop one broker cleanly and start it again."""
        self.stop_broker(broker)
        self.start_broker(broker)

    def check(self) -> None:
        """Do nothing while every broker that should run does.

        Raises:
            EmbeddedKafkaError: One ended although nobody asked it to.
        """
        for node_id in sorted(self._expected):
            broker = self._brokers[node_id]
            if not broker.running:
                message = f"broker {node_id} ended: {broker.failure()}; its log is {broker.files.log}"
                raise EmbeddedKafkaError(message)

    def _broker(self, node_id: int) -> Broker:
        if node_id not in self._brokers:
            message = f"there is no broker {node_id}: the cluster has {sorted(self._brokers)}"
            raise EmbeddedKafkaError(message)
        return self._brokers[node_id]

    def _running(self, node_id: int) -> Broker:
        broker = self._broker(node_id)
        if not broker.running:
            message = f"broker {node_id} does not run"
            raise EmbeddedKafkaError(message)
        return broker

    def _start_all(self, runtime: Runtime, identity: Identity) -> None:
        """Start the brokers; another choice of ports is tried where somebody took a chosen one in the meantime."""
        for tries_left in reversed(range(START_TRIES)):
            self._configure(runtime, identity)
            self._format(identity)
            for broker in self._brokers.values():
                broker.start(self._owner_pid, self._stop_s)
            self._expected = set(self._brokers)
            try:
                self._wait_ready(list(self._brokers.values()))
            except EmbeddedKafkaError:
                clash = any(broker.port_was_taken() for broker in self._brokers.values())
                for broker in self._brokers.values():
                    broker.end_now()
                if not clash or tries_left == 0:
                    raise
            else:
                return

    def _configure(self, runtime: Runtime, identity: Identity) -> None:
        """Choose ports and write every broker's configuration."""
        node_ids = range(1, self._size + 1)
        self._ports = self._client_ports()
        controllers: dict[int, int] = {}
        for node_id in node_ids:
            controllers[node_id] = free_port({*self._ports.values(), *controllers.values()})
        secured = self._secured_properties(identity)
        for node_id in node_ids:
            files = self._data_dir.node(node_id)
            own = configuration.broker_properties(node_id, files, self._ports, controllers)
            self._brokers[node_id] = Broker(node_id, files, runtime, heap_mib=self._heap_mib)
            self._brokers[node_id].write_properties({**own, **secured, **self._properties})

    def _client_ports(self) -> dict[int, int]:
        """Return each broker's port for clients.

        Raises:
            EmbeddedKafkaError: An asked-for port is taken.
        """
        ports: dict[int, int] = {}
        for node_id in range(1, self._size + 1):
            port = self._first_port + node_id - 1 if self._first_port else free_port(ports.values())
            if not is_free(port):
                message = f"port {port} is taken by another program; stop it or choose another `--port`"
                raise EmbeddedKafkaError(message)
            ports[node_id] = port
        return ports

    def _secured_properties(self, identity: Identity) -> dict[str, str]:
        """Return the security part of the brokers' configuration, and set what clients need."""
        self.bootstrap_servers = ",".join(f"{HOST}:{port}" for port in self._ports.values())
        self.client_options = {"bootstrap.servers": self.bootstrap_servers}
        if self._security is None:
            return security.PLAINTEXT_PROPERTIES
        files = make_tls_files(self._data_dir.path / "tls")
        self.client_options |= self._security.client_options(files)
        return security.broker_properties(files, identity.broker_password)

    def _format(self, identity: Identity) -> None:
        """Format everything in a new directory, also one where an earlier start ended half-way."""
        if identity.formatted:
            for broker in self._brokers.values():
                broker.restore_identity()
            return
        users = [] if self._security is None else self._security.stored_users(identity.broker_password)
        first, *others = self._brokers.values()
        first.format(identity.cluster_id, users)
        for broker in others:
            broker.format_like(first.files)
        self._data_dir.mark_formatted(identity)

    def _wait_ready(self, started: list[Broker]) -> None:
        """Wait until clients can use the brokers that were started.

        Raises:
            EmbeddedKafkaError: One ended, or `START_S` passed.
        """
        deadline = time.monotonic() + START_S
        while not all(is_open(self._ports[broker.node_id]) for broker in started):
            self._check_start(started, deadline)
            time.sleep(POLL_S)
        wanted = {broker.node_id for broker in started}
        client = AdminClient({**self.client_options, "log_level": 0})
        while not wanted <= _known_brokers(client):
            self._check_start(started, deadline)
            time.sleep(POLL_S)

    def _check_start(self, started: list[Broker], deadline: float) -> None:
        for broker in started:
            if not broker.running:
                message = f"broker {broker.node_id} did not start: {broker.failure()}; its log is {broker.files.log}"
                raise EmbeddedKafkaError(message)
        if time.monotonic() > deadline:
            message = f"the brokers were not ready after {START_S:.0f} s; the first one's log is {self.log_path()}"
            raise EmbeddedKafkaError(message)


def stop_leftovers(data_dir: Path) -> int:
    """Kill every broker that runs on `data_dir`, whoever started it.

    Returns:
        How many there were.
    """
    return sum(stop_leftover(files) for files in DataDir(data_dir).existing_nodes())


def _known_brokers(client: AdminClient) -> set[int]:
    """Return the ids of the brokers that clients are told about; none while the cluster does not answer."""
    try:
        return set(client.list_topics(timeout=METADATA_TIMEOUT_S).brokers)
    except KafkaException:
        return set()

"""The directory of an embedded Apache Kafka: one user at a time, one identity, recovered after half a format."""

import fcntl
import json
import secrets
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from local.broker import NodeFiles, random_kafka_id
from local.errors import EmbeddedKafkaError
from local.security import Scram

OWN_NAMES = frozenset({"cluster.json", "cluster.json.partial", "lock", "tls", "client.env"})


@dataclass(frozen=True)
class Identity:
    """What stays the same for the life of a data directory.

    Attributes:
        cluster_id: Kafka's id of the cluster.
        brokers: How many brokers it has.
        username: The clients' user, None in a cluster without security.
        password: Its password.
        broker_password: What brokers log in to each other with.
        formatted: Whether every broker's data directory was formatted once; until then there is nothing to lose in it.
    """

    cluster_id: str
    brokers: int
    username: str | None
    password: str | None
    broker_password: str
    formatted: bool = False

    @property
    def security(self) -> Scram | None:
        """The clients' way in; None means plaintext."""
        return None if self.username is None else Scram(self.username, self.password)


class DataDir:
    """A data directory, used by one process at a time.

    Args:
        path: Made when missing; must be empty or an earlier data directory of ours.
    """

    def __init__(self, path: Path) -> None:
        """See the class."""
        self.path = path.absolute()
        self._lock: IO[str] | None = None

    def acquire(self) -> None:
        """Take the directory for this process until `release`.

        Raises:
            EmbeddedKafkaError: Another process uses it, it holds something else, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign()
            lock = (self.path / "lock").open("a+")
        except OSError as error:
            message = f"cannot use {self.path} for Apache Kafka: {error.strerror}"
            raise EmbeddedKafkaError(message) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            message = (
                f"{self.path} is in use by another embedded Apache Kafka; stop that one or choose another directory"
            )
            raise EmbeddedKafkaError(message) from error
        self._lock = lock

    def release(self) -> None:
        """Let others take the directory; harmless when it was not taken."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def node(self, node_id: int) -> NodeFiles:
        """Return where broker `node_id` keeps its files."""
        return NodeFiles(self.path / f"node-{node_id}")

    def existing_nodes(self) -> list[NodeFiles]:
        """Return the files of every broker that was ever started here."""
        return [NodeFiles(path) for path in sorted(self.path.glob("node-*"))]

    def open_identity(self, brokers: int, security: Scram | None) -> Identity:
        """Return the identity of the cluster kept here, or give a new one to a directory that has none.

        Raises:
            EmbeddedKafkaError: The directory holds a cluster of another size or with another way in.
        """
        found = self._read_identity()
        if found is None:
            return self._new_identity(brokers, security)
        if found.brokers != brokers:
            message = f"{self.path} holds a cluster of {found.brokers} brokers, not {brokers}; choose another directory"
            raise EmbeddedKafkaError(message)
        if not _same_way_in(found, security):
            message = f"{self.path} holds a cluster with another user or without TLS and SASL; choose another directory"
            raise EmbeddedKafkaError(message)
        return found

    def mark_formatted(self, identity: Identity) -> None:
        """Remember that every broker was formatted: from now on its records are kept."""
        self._write_identity(replace(identity, formatted=True))

    def _refuse_foreign(self) -> None:
        """Raise when something that is not ours lies here: it would be mixed up with the brokers' files."""
        for entry in self.path.iterdir():
            if entry.name not in OWN_NAMES and not entry.name.startswith("node-"):
                message = f"{self.path} is not a data directory of an embedded Apache Kafka: it holds `{entry.name}`"
                raise EmbeddedKafkaError(message)

    def _new_identity(self, brokers: int, security: Scram | None) -> Identity:
        """Write a new identity, and drop what a start that did not get so far left behind."""
        for node in self.existing_nodes():
            shutil.rmtree(node.data, ignore_errors=True)
        identity = Identity(
            cluster_id=random_kafka_id(),
            brokers=brokers,
            username=None if security is None else security.username,
            password=None if security is None else security.password or secrets.token_urlsafe(24),
            broker_password=secrets.token_urlsafe(24),
        )
        self._write_identity(identity)
        return identity

    def _read_identity(self) -> Identity | None:
        path = self.path / "cluster.json"
        try:
            return Identity(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            message = f"{path} is damaged, so nobody knows whose records lie beside it; choose another directory"
            raise EmbeddedKafkaError(message) from error

    def _write_identity(self, identity: Identity) -> None:
        """Replace the identity in one step; it holds passwords, so only the owner may read it."""
        partial = self.path / "cluster.json.partial"
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(asdict(identity)), encoding="utf-8")
        partial.replace(self.path / "cluster.json")


def _same_way_in(found: Identity, wanted: Scram | None) -> bool:
    if wanted is None:
        return found.username is None
    return found.username == wanted.username and wanted.password in (None, found.password)

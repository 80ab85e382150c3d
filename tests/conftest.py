"""Fixtures for everybody: one real Apache Kafka for the whole run, and names on it that no other test uses.

The broker starts when the first test asks for it and serves every worker of pytest-xdist. It belongs to the process
that was started by hand: whatever happens to that one, the broker ends with it.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from local.install import install
from local.kafka import EmbeddedKafka, stop_leftovers
from local.ports import free_port as choose_free_port
from tests.kafka_log import create_topic, create_topics

GIVEN_CLUSTER = "KAFKA_BOOTSTRAP_SERVERS"
PARTITIONS = 4


@dataclass(frozen=True)
class SharedRun:
    """What the processes of one test run share.

    Attributes:
        directory: Of the broker and of the lock that decides who starts it.
        owner_pid: The process that was started by hand.
    """

    directory: Path
    owner_pid: int


@dataclass(frozen=True)
class KafkaCluster:
    """A Kafka for tests.

    Attributes:
        bootstrap_servers: Where clients connect.
        client_options: The same as librdkafka's options.
    """

    bootstrap_servers: str
    client_options: dict[str, str]


@dataclass(frozen=True)
class Topics:
    """Names of the contract's topics that only one test uses; `events` exists, flows create the others.

    Attributes:
        prefix: Starts every name; also good for group ids and transactional ids.
    """

    prefix: str
    events: str
    windows: str
    alerts: str
    alerts_state: str
    dead_letter: str
    truth: str


RUN = pytest.StashKey[SharedRun]()

# How long an example takes depends on what else the machine does.
settings.register_profile("tailmark", deadline=None)
settings.load_profile("tailmark")


def pytest_configure(config: pytest.Config) -> None:
    """Agree on a directory: made by the process that was started by hand, told to workers."""
    told: dict[str, str] | None = getattr(config, "workerinput", None)
    if told is None:
        config.stash[RUN] = SharedRun(Path(tempfile.mkdtemp(prefix="tailmark-tests-")), os.getpid())
    else:
        config.stash[RUN] = SharedRun(Path(told["kafka_directory"]), int(told["kafka_owner_pid"]))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - xdist's, which has no types
    """Tell a worker of pytest-xdist what it shares."""
    run = node.config.stash[RUN]
    node.workerinput["kafka_directory"] = str(run.directory)
    node.workerinput["kafka_owner_pid"] = str(run.owner_pid)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the broker, whichever worker started it."""
    run = config.stash.get(RUN, None)
    if run is not None and run.owner_pid == os.getpid():
        stop_leftovers(run.directory / "kafka")
        shutil.rmtree(run.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> KafkaCluster:
    """A Kafka that every test of the run shares; `KAFKA_BOOTSTRAP_SERVERS` names one that runs already."""
    given = os.environ.get(GIVEN_CLUSTER)
    options = {"bootstrap.servers": given} if given else _shared_broker(request.config.stash[RUN])
    return KafkaCluster(options["bootstrap.servers"], options)


@pytest.fixture
def topics(kafka: KafkaCluster) -> Topics:
    """Names of all topics of a flow, with `events` made (4 partitions) and empty."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    names = Topics(
        prefix,
        *(f"{prefix}.{name}" for name in ("events", "windows", "alerts", "alerts-state", "dead-letter", "truth")),
    )
    create_topics(kafka.client_options, [names.events], partitions=PARTITIONS)
    return names


@pytest.fixture
def make_topic(kafka: KafkaCluster) -> Callable[..., str]:
    """A function that makes a topic nobody else uses and returns its name: `make_topic("in", partitions=2)`."""

    def make(name: str = "topic", *, partitions: int = PARTITIONS, **config: str) -> str:
        topic = f"t{uuid.uuid4().hex[:12]}.{name}"
        create_topic(kafka.client_options, topic, partitions=partitions, **config)
        return topic

    return make


@pytest.fixture
def cluster(kafka: KafkaCluster, topics: Topics) -> dict[str, str]:
    """The environment of a flow or simulator that works on `topics`."""
    return {
        "TAILMARK_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "TAILMARK_KAFKA__GROUP_ID": topics.prefix,
        "TAILMARK_KAFKA__TOPICS__EVENTS": topics.events,
        "TAILMARK_KAFKA__TOPICS__WINDOWS": topics.windows,
        "TAILMARK_KAFKA__TOPICS__ALERTS": topics.alerts,
        "TAILMARK_KAFKA__TOPICS__ALERTS_STATE": topics.alerts_state,
        "TAILMARK_KAFKA__TOPICS__DEAD_LETTER": topics.dead_letter,
        "TAILMARK_KAFKA__TOPICS__TRUTH": topics.truth,
    }


@pytest.fixture
def start_kafka(tmp_path: Path) -> Iterator[Callable[..., EmbeddedKafka]]:
    """A function that starts a cluster of the test's own, to be hurt: `start_kafka(brokers=3, security=Scram())`.

    It takes what `EmbeddedKafka` takes; `data_dir` is a name in the test's folder. It ends with the test.
    """
    with contextlib.ExitStack() as started:

        def start(data_dir: str = "kafka", **options: Any) -> EmbeddedKafka:
            cluster = EmbeddedKafka(tmp_path / data_dir, runtime=install(say=print), **options)
            started.callback(cluster.stop, clean=False)
            return cluster.start()

        yield start


@pytest.fixture
def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    return choose_free_port()


def _shared_broker(run: SharedRun) -> dict[str, str]:
    """Return the client options of the run's broker; the first process to ask starts it."""
    run.directory.mkdir(exist_ok=True)
    stated = run.directory / "client.json"
    with (run.directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stated.exists():
            runtime = install(say=print)
            broker = EmbeddedKafka(run.directory / "kafka", owner_pid=run.owner_pid, runtime=runtime).start()
            STARTED.append(broker)
            stated.write_text(json.dumps(broker.client_options), encoding="utf-8")
    options: dict[str, str] = json.loads(stated.read_text(encoding="utf-8"))
    return options


STARTED: list[EmbeddedKafka] = []  # keeps the broker's lock on its directory for as long as this worker lives

"""Runs of a flow, by itself the anomaly flow: its own process, recovery on, every sink on, output topics of its own."""

from __future__ import annotations

import shutil
import signal
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.processes import BenchmarkError, Child, Usage
from local.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any, Self

    from confluent_kafka import Message

    from benchmarks.cluster import Cluster

FLOW: Final = "flows.anomaly"
EPOCH_S: Final = 10
"""Seconds between snapshots, Bytewax's own default."""

_READ_BATCH: Final = 10_000
_WAIT_S: Final = 0.05
_TOPIC_TIMEOUT_S: Final = 60.0


@dataclass
class FlowRun:
    """One run of the flow, or several that resume one another.

    Attributes:
        cluster: Where.
        events: Input topic.
        settings: Variables on top of the defaults.
        epoch_s: Seconds between snapshots.
        runner: What is run with the flow's arguments: Bytewax's own, or a program that watches it.
        flow: Module of the flow.
    """

    cluster: Cluster
    events: str
    settings: dict[str, str] = field(default_factory=dict)
    epoch_s: int = EPOCH_S
    runner: tuple[str, ...] = ("-m", "bytewax.run")
    flow: str = FLOW

    def __post_init__(self) -> None:
        """Choose names."""
        self.environment = self.cluster.environment(self.events) | self.settings
        self.windows = self.environment["TAILMARK_KAFKA__TOPICS__WINDOWS"]
        self.recovery: Path = self.cluster.directory / f"recovery-{uuid.uuid4().hex[:8]}"
        self.recovery.mkdir()

    def start(self, *, to_the_end: bool = False) -> Child:
        """Start the flow, or resume it.

        Args:
            to_the_end: Whether it reads to the end, closes the open windows and stops.
        """
        port = {"TAILMARK_PROMETHEUS__PORT": str(free_port())}
        stop = {"TAILMARK_KAFKA__STOP_AT_END": "true" if to_the_end else "false"}
        state = ["-r", str(self.recovery), "-s", str(self.epoch_s), "-b", "0"]
        return Child([*self.runner, self.flow, *state], self.environment | port | stop)

    def to_the_end(self) -> Usage:
        """Read the topic to its end, close the open windows and stop."""
        return self.start(to_the_end=True).wait()

    def until(self, records: int) -> Usage:
        """Read until so many windows are written, then drain and stop: open windows stay open.

        Raises:
            BenchmarkError: They never were.
        """
        child = self.start()
        try:
            with self.reader() as reader:
                reader.wait_for(records, child)
            child.signal(signal.SIGTERM)
            return child.wait()
        finally:
            child.kill()

    def reader(self) -> AbstractContextManager[Reader]:
        """Read what the flow writes to its windows topic, from the beginning."""
        return Reader(self.cluster.client, self.windows)

    def clean(self) -> None:
        """Delete output topics and state."""
        names = [value for name, value in self.environment.items() if "__TOPICS__" in name and value != self.events]
        self.cluster.delete(names)
        shutil.rmtree(self.recovery, ignore_errors=True)


class Reader:
    """Reads a topic as another program would: committed records only."""

    def __init__(self, client: dict[str, Any], topic: str) -> None:
        """Prepare to read; the topic may appear later."""
        self._topic = topic
        self._client = client
        self._consumer = Consumer(
            {
                **client,
                "group.id": "tailmark-bench-reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 100,
            }
        )
        self._assigned = False
        self.seen = 0

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster."""
        self._consumer.close()

    def assign(self, child: Child) -> None:
        """Wait until the topic is there.

        Raises:
            BenchmarkError: The flow ended before it made it, or took too long.
        """
        admin = AdminClient(self._client)
        deadline = time.monotonic() + _TOPIC_TIMEOUT_S
        while self._topic not in (known := admin.list_topics(timeout=_TOPIC_TIMEOUT_S).topics):
            child.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the flow did not make `{self._topic}` within {_TOPIC_TIMEOUT_S:.0f} s")
            time.sleep(_WAIT_S)
        partitions = known[self._topic].partitions
        self._consumer.assign([TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in partitions])
        self._assigned = True

    def batches(self, child: Child, wait_s: float = _WAIT_S) -> Iterator[list[Message]]:
        """Yield what has come, again and again, for as long as the flow runs.

        Raises:
            BenchmarkError: The flow ended.
            KafkaException: The cluster failed.
        """
        if not self._assigned:
            self.assign(child)
        while True:
            messages = []
            for message in self._consumer.consume(_READ_BATCH, wait_s):
                error = message.error()
                if error is None:
                    messages.append(message)
                elif not error.retriable():
                    raise KafkaException(error)
            self.seen += len(messages)
            yield messages
            child.check()

    def wait_for(self, records: int, child: Child, timeout_s: float = 180.0) -> None:
        """Read until so many records were seen.

        Raises:
            BenchmarkError: They never were.
        """
        deadline = time.monotonic() + timeout_s
        for _ in self.batches(child):
            if self.seen >= records:
                return
            if time.monotonic() > deadline:
                raise BenchmarkError(f"`{self._topic}` got {self.seen} of {records} records in {timeout_s:.0f} s")

"""Remote write as an output: what is not delivered waits in a bounded queue, and in the snapshot.

Each sender has some of the shards, and one request under way: so samples of a series are in the order of time. While a
receiver is away, the queue fills up and the source rests; epochs go on, and take along what waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from operators.kernels.tally_frame import TallyFrame
from operators.reporting import reported
from sinks.remote_write_delivery import AbandonedError, Delivery, DeliveryCounts, DeliveryRules, samples_in
from sinks.remote_write_receiver import Receiver
from sinks.remote_write_state import DeliveredMarks, waiting_from_bytes, waiting_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SENDERS: Final = 4
"""Senders of a flow, which share its shards: a constant, as their names are part of the state."""

BURST: Final = 20
"""By how often its capacity a queue may be exceeded before the worker itself is stopped: what comes after the source
rests was under way already."""

LEAVE_S: Final = 5.0
"""How long a flow that was told to stop goes on delivering; the rest waits in the snapshot."""

_POLL_S: Final = 0.05
_LOG: Final = logging.getLogger(__name__)

ShardFrame = tuple[str, TallyFrame]


@dataclass(frozen=True, eq=False)
class RemoteWriteSink(FixedPartitionedSink[ShardFrame, bytes]):
    """Writes the samples of frames to a receiver.

    Attributes:
        url: Where to.
        rules: How to deliver.
        timeout_s: How long an answer may take.
        headers: Further headers of every request.
        capacity: How many samples may wait before the source rests.
        stopping: Tells that the flow was told to stop.
        directory: Where to write down what was delivered; None for a flow without recovery.
    """

    url: str
    rules: DeliveryRules
    timeout_s: float
    headers: Mapping[str, str]
    capacity: int
    stopping: Callable[[], bool]
    directory: Path | None
    senders: list[Sender] = field(default_factory=list, repr=False)

    def list_parts(self) -> list[str]:
        """Name the senders."""
        return [f"sender-{number:02d}" for number in range(SENDERS)]

    def part_fn(self, item_key: str) -> int:
        """Choose the sender of a shard, by its number."""
        return int(item_key.rpartition("-")[2])

    @reported
    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> Sender:  # noqa: ARG002
        """Start a sender with what waited when the snapshot was taken.

        Raises:
            StateError: The snapshot can't be read.
        """
        waiting = [] if resume_state is None else waiting_from_bytes(resume_state)
        sender = Sender(self, int(for_part.rpartition("-")[2]), waiting)
        self.senders.append(sender)
        return sender

    def full(self) -> bool:
        """Tell whether a sender of this process has so much to do that the source should rest."""
        return any(sender.waiting_samples > self.capacity for sender in self.senders)


class Sender(StatefulSinkPartition[ShardFrame, bytes]):
    """One thread that delivers the frames of some shards, one pane after the other.

    Attributes:
        counts: What was delivered.
        waiting_samples: How many samples wait.
    """

    def __init__(self, sink: RemoteWriteSink, number: int, waiting: list[ShardFrame]) -> None:
        """Start.

        Args:
            sink: The sink.
            number: Of this sender.
            waiting: Frames to deliver first.
        """
        self._sink = sink
        self._marks = DeliveredMarks(sink.directory, number, sink.url)
        self._receiver = Receiver(sink.url, timeout_s=sink.timeout_s, headers=sink.headers, clock=time.time)
        self._delivery = Delivery(self._receiver, sink.rules, rest=self._rest)
        self.counts: DeliveryCounts = self._delivery.counts
        self.waiting_samples = 0
        self._changed = threading.Condition()
        self._leave = threading.Event()
        self._panes: defaultdict[int, list[ShardFrame]] = defaultdict(list)
        self._underway: list[ShardFrame] = []
        self._failure: Exception | None = None
        self._add(waiting)
        self._thread = threading.Thread(target=self._run, name=f"tailmark-sender-{number}", daemon=True)
        self._thread.start()

    @reported
    def write_batch(self, values: list[ShardFrame]) -> None:
        """Take frames over; waits only when far more than the capacity has come together.

        Raises:
            RemoteWriteError: The receiver does not let us write.
        """
        with self._changed:
            self._add(values)
            self._changed.notify_all()
            while self.waiting_samples > BURST * self._sink.capacity and self._failure is None:
                if self._sink.stopping():
                    break
                self._changed.wait(_POLL_S)
        self._check()

    @reported
    def snapshot(self) -> bytes:
        """Give what is not delivered yet.

        Raises:
            RemoteWriteError: The receiver does not let us write.
        """
        self._check()
        with self._changed:
            return waiting_to_bytes(
                [*self._underway, *(one for _, pane in sorted(self._panes.items()) for one in pane)]
            )

    @reported
    def close(self) -> None:
        """Deliver what waits, for a moment only when the flow was told to stop.

        Raises:
            RemoteWriteError: The receiver does not let us write.
        """
        told_s: float | None = None
        with self._changed:
            while (self._panes or self._underway) and self._failure is None:
                if self._sink.stopping():
                    told_s = time.monotonic() if told_s is None else told_s
                    if time.monotonic() - told_s > LEAVE_S:
                        _LOG.warning(
                            "%d samples for %s were not delivered: they are in the snapshot, if there is one",
                            self.waiting_samples,
                            self._receiver.name,
                        )
                        break
                self._changed.wait(_POLL_S)
            self._leave.set()
            self._changed.notify_all()
        self._thread.join(self._sink.timeout_s + 1)
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _add(self, frames: list[ShardFrame]) -> None:
        """Queue the frames that the receiver does not have."""
        for shard, frame in frames:
            if frame.again:
                continue
            if self._marks.has(shard, frame):
                self.counts.samples["suppressed"] += samples_in(frame)
            else:
                self._panes[frame.pane_end_ms].append((shard, frame))
                self.waiting_samples += samples_in(frame)

    def _rest(self, seconds: float) -> bool:
        """Wait before the next try; True when the flow leaves."""
        return self._leave.wait(seconds)

    def _run(self) -> None:
        """Deliver one pane after the other until the flow leaves."""
        while True:
            with self._changed:
                while not self._panes and not self._leave.is_set():
                    self._changed.wait()
                if self._leave.is_set():
                    self._receiver.close()
                    return
                # Shards don't have to be equally far: each is in order by itself.
                self._underway = self._panes.pop(min(self._panes))
            try:
                self._delivery.deliver([frame for _, frame in self._underway])
                self._marks.add(self._underway)
            except AbandonedError:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker raises it
                self._failure = error
                return
            with self._changed:
                self.waiting_samples -= sum(samples_in(frame) for _, frame in self._underway)
                self._underway = []
                self._changed.notify_all()


@operator
def remote_write(step_id: str, up: KeyedStream[TallyFrame], *, sink: RemoteWriteSink) -> None:
    """Write frames to a receiver of remote write.

    Args:
        step_id: Unique name of this step.
        up: Frames by shard.
        sink: The receiver.
    """

    def named(item: tuple[str, TallyFrame]) -> tuple[str, ShardFrame]:
        return item[0], item

    op.output("sink", op.map("name", up, named), sink)

"""A flow that copies a topic, numbers the records of each key, and is made to be killed.

Called by test_exactly_once: `counting_copy_flow.py BROKERS INPUT OUTPUT DIRECTORY COMMIT STALL_S`. It prints `ready`
when its recovery directory is. Between the commit of a sink and the moment its epoch is durable it waits for STALL_S,
so that most kills fall where it matters.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main

from sinks.kafka import ExactlyOnceKafkaSink, KafkaOutputPartition
from sinks.records import OutputRecords
from sources.recovery import prepare_recovery

PARTITIONS = 4
EPOCH = timedelta(seconds=0.3)
BATCH_RECORDS = 200


class SlowPartition(KafkaOutputPartition):
    """Widens the window between the commit to Kafka and the durable epoch."""

    stall_s = 0.0

    def snapshot(self) -> bytes:
        state = super().snapshot()
        time.sleep(self.stall_s)
        return state


@dataclass(frozen=True, slots=True, eq=False)
class SlowSink(ExactlyOnceKafkaSink):
    """The sink with slow snapshots."""

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> KafkaOutputPartition:
        return SlowPartition(self, int(for_part), resume_state)


def numbered(state: int | None, message: Any) -> tuple[int, tuple[bytes, bytes, bytes]]:
    """Number the records of a key; the identity of each is its place in the input."""
    count = (state or 0) + 1
    return count, (message.key, b"%d" % count, b"%d:%d" % (message.partition, message.offset))


def encoded(rows: list[tuple[str, tuple[bytes, bytes, bytes]]]) -> list[tuple[str, OutputRecords]]:
    """Make one frame for each output partition of a batch."""
    groups: dict[int, list[tuple[bytes, bytes, bytes]]] = {}
    for key, row in rows:
        groups.setdefault(int(key) % PARTITIONS, []).append(row)
    return [
        (f"out-{number:02d}", OutputRecords(*map(list, zip(*group, strict=True)), headers=None, expire_ms=0))
        for number, group in groups.items()
    ]


def main(brokers: str, source: str, target: str, directory: str, gather_s: str, stall_s: str) -> None:
    recovery = prepare_recovery(Path(directory), settings={}, constants={}, partitions=2)
    sys.stdout.write(f"ready {recovery.purged_rows}\n")
    sys.stdout.flush()
    SlowPartition.stall_s = float(stall_s)
    flow = Dataflow("copy")
    messages = op.input("in", flow, KafkaSource([brokers], [source], batch_size=BATCH_RECORDS))
    keyed = op.key_on("key", messages, lambda message: message.key.decode())
    rows = op.stateful_map("count", keyed, numbered)
    client = {"bootstrap.servers": brokers}
    gather = None if gather_s == "None" else float(gather_s)
    sink = SlowSink(client=client, flow="copy", topic=target, partitions=PARTITIONS, gather_s=gather)
    op.output("out", op.flat_map_batch("encode", rows, encoded), sink)
    options: dict[str, Any] = {"epoch_interval": EPOCH, "recovery_config": RecoveryConfig(directory, timedelta(0))}
    cli_main(flow, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])

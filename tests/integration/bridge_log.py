"""Logs for the bridge, written to Kafka and read by the oracle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.dirty_log import START_MS, Log
from tests.kafka_log import NewRecord, produce
from tests.tally_oracle import TallyOracle

if TYPE_CHECKING:
    from tests.conftest import KafkaCluster, Topics

KAFKA_MS = START_MS + 3_600_000
TRACED_EVERY = 3


def traced(log: Log) -> Log:
    """Give every third event a trace id of its own."""
    return [
        [
            _with_trace(value, f"trace-{partition}-{number}") if number % TRACED_EVERY == 0 else value
            for number, value in enumerate(values)
        ]
        for partition, values in enumerate(log)
    ]


def _with_trace(value: bytes | None, name: str) -> bytes | None:
    try:
        fields = json.loads(value or b"")
        fields["trace_id"] = name
    except (ValueError, TypeError):
        return value
    return json.dumps(fields).encode()


def publish(
    kafka: KafkaCluster, topics: Topics, log: Log, oracle: TallyOracle | None = None, later_ms: int = 0
) -> TallyOracle:
    """Write a log to Kafka, and read it by an oracle.

    Args:
        kafka: Where to.
        topics: Likewise.
        log: Values by partition.
        oracle: One that has read what was written before; a new one when None.
        later_ms: By how much all event times are moved.
    """
    oracle = oracle or TallyOracle()
    records = []
    for partition, values in enumerate(log):
        for offset, original in enumerate(values):
            value = moved(original, later_ms)
            records.append(NewRecord(value, b"k", partition, timestamp_ms=KAFKA_MS))
            oracle.record(partition, offset, value, KAFKA_MS)
    produce(kafka.client_options, topics.events, records)
    return oracle


def moved(value: bytes | None, later_ms: int) -> bytes | None:
    """Move the event times in a value; what is no object stays as it is."""
    try:
        fields = json.loads(value or b"")
        fields["timestamp_ms"] += later_ms
    except (ValueError, TypeError, KeyError):
        return value
    return json.dumps(fields).encode()

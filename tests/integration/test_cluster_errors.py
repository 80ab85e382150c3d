"""What stops one process of a cluster is said by that process, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.dirty_log import START_MS, event
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import NewRecord, end_offsets, produce

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics


def test_cause_of_a_failure_is_said_though_bytewax_hides_it(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    def publish(first_ms: int) -> None:
        values = [event(START_MS + first_ms + at) for at in range(0, 30_000, 500)]
        produce(
            kafka.client_options,
            topics.events,
            [NewRecord(value, None, n % 4, timestamp_ms=START_MS + 60_000) for n, value in enumerate(values)],
        )

    env = settings_for(kafka, topics, KAFKA__STOP_AT_END="true")
    publish(0)
    codes, stderr = FlowProcess(env, tmp_path / "recovery", processes=2).run()
    assert codes == [0, 0], stderr
    publish(30_000)
    ends = end_offsets(kafka.client_options, topics.events)
    gone = [TopicPartition(topics.events, partition, end) for partition, end in ends.items()]
    # The client must outlive its requests: without a name it is gone before they are answered.
    admin = AdminClient(kafka.client_options)
    for deleted in admin.delete_records(gone).values():
        deleted.result(30)
    codes, stderr = FlowProcess(env, tmp_path / "recovery", processes=2).run()
    assert 0 not in codes  # Rust aborts a process that panics while it panics
    lines = [line for line in stderr.splitlines() if line.startswith("tailmark: ")]
    assert any("retention has passed the snapshot" in line for line in lines), stderr
    assert "Traceback" not in stderr

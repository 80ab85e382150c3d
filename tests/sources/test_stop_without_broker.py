"""A flow can be stopped while its broker is away."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.dirty_log import START_MS, event
from tests.flow_process import FlowProcess
from tests.kafka_log import create_topic, produce, wait_for_records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from local.kafka import EmbeddedKafka


def test_flow_stops_cleanly_while_its_broker_is_away(
    start_kafka: Callable[..., EmbeddedKafka], free_port: int, tmp_path: Path
) -> None:
    kafka = start_kafka()
    create_topic(kafka.client_options, "telemetry.events", partitions=2)
    produce(kafka.client_options, "telemetry.events", [event(START_MS + at) for at in range(0, 60_000, 500)])
    env = {
        "TAILMARK_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "TAILMARK_PROMETHEUS__PORT": str(free_port),
        "TAILMARK_EVENTS__MAX_FUTURE_MS": "31536000000",
    }
    flow = FlowProcess(env, tmp_path / "recovery").start()
    wait_for_records(kafka.client_options, "telemetry.windows", 3)
    kafka.kill(1)
    flow.signal(signal.SIGTERM)
    codes, stderr = flow.wait(60)
    assert codes == [0], stderr

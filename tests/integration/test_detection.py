"""Settings of detection and alerts, from the file that names them to the topics of a running flow."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from tests.dirty_log import START_MS
from tests.flow_process import FlowProcess, settings_for
from tests.incident_log import FIRST_INCIDENT_PANE, SERVICES, incident_log
from tests.integration.bridge_page import eventually, page_of
from tests.kafka_log import NewRecord, produce, read_topic

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.conftest import KafkaCluster, Topics

CONFIG = f"""
[detection.detectors]
limit = "static latency_ms=1"

[detection.series]
"{SERVICES[0]}|*" = "limit"

[alerts]
open_windows = 1
open_within_windows = 1

[alerts.maintenance]
"all" = "{SERVICES[1]}|* {START_MS - 1_000_000}/{START_MS + 100_000_000}"
"""


def publish(kafka: KafkaCluster, topics: Topics, *, panes: int) -> None:
    log = incident_log(1, partitions=4, panes=panes)
    records = [(partition, value) for pane in log for partition, of_one in enumerate(pane) for value in of_one]
    produce(kafka.client_options, topics.events, [NewRecord(v, None, p, (), START_MS + 10**8) for p, v in records])


def values(kafka: KafkaCluster, topic: str) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in read_topic(kafka.client_options, topic) if record.value is not None]


def test_chosen_detectors_and_maintenance_of_the_file_decide_in_the_flow(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    publish(kafka, topics, panes=60)
    (tmp_path / "tailmark.toml").write_text(CONFIG)
    settings = settings_for(kafka, topics, KAFKA__STOP_AT_END="true")
    settings["TAILMARK_CONFIG"] = str(tmp_path / "tailmark.toml")
    codes, said = FlowProcess(settings, tmp_path / "recovery").run()
    assert codes == [0], said

    windows = values(kafka, topics.windows)
    limited = [window for window in windows if window["service"] == SERVICES[0] and window["count"] >= 20]
    assert {window["latency_upper"] for window in limited} == {1.0}
    assert {window["state"] for window in limited} == {"anomalous"}
    fired = {
        (alert["labels"]["service"], alert["labels"]["alertname"])
        for alert in values(kafka, topics.alerts)
        if alert["status"] == "firing"
    }
    assert (SERVICES[0], "LatencyAnomaly") in fired
    assert SERVICES[1] not in {service for service, _ in fired}
    assert any(window["service"] == SERVICES[1] and window["state"] == "anomalous" for window in windows)


def test_alert_that_fires_is_on_the_page_of_a_resumed_flow_although_nothing_comes(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    publish(kafka, topics, panes=FIRST_INCIDENT_PANE + 6)
    env = settings_for(kafka, topics)
    flow = FlowProcess(env, tmp_path / "recovery")

    def firing() -> list[str]:
        return [line for line in page_of(env).splitlines() if line.startswith("tailmark_alert_firing{")]

    flow.start().serving()
    eventually(lambda: bool(firing()))
    before = firing()
    flow.signal(signal.SIGTERM)
    codes, said = flow.wait()
    assert codes == [0], said
    flow.start().serving()
    try:
        eventually(lambda: firing() == before)
    finally:
        flow.kill()

"""`tailmark feedback`: from an alert of the topic to a line that the flow reads when it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from cli.main import app
from flows.alert_settings import policy_of
from flows.settings import SettingsError, load_settings
from operators.kernels.encode import alert_records
from operators.kernels.episodes import Harmless
from tests.flow_process import settings_for
from tests.kafka_log import NewRecord, create_topic, produce
from tests.kernels.episode_world import Shard

if TYPE_CHECKING:
    from pathlib import Path

    from operators.kernels.frames import Transition
    from tests.conftest import KafkaCluster, Topics


def fired() -> Transition:
    (alert,) = Shard().slide(latency=3.0)
    return alert


def run(environ: dict[str, str], *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["feedback", *arguments], env=environ)
    return result.exit_code, result.output


def test_word_on_an_alert_of_the_topic_keeps_its_like_closed(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    alert = fired()
    earlier = replace(alert, starts_at_ms=alert.starts_at_ms - 60_000, value=300.0)
    records = alert_records([earlier, alert, replace(alert, status="resolved")])
    values = zip(records.keys, records.values, strict=True)
    create_topic(kafka.client_options, topics.alerts, partitions=1)
    produce(kafka.client_options, topics.alerts, [NewRecord(value, key, 0, (), None) for key, value in values])
    produce(kafka.client_options, topics.alerts, [NewRecord(b"hello", alert.fingerprint.encode(), 0)])
    path = tmp_path / "said" / "feedback.ndjson"
    environ = settings_for(kafka, topics, ALERTS__FEEDBACK_PATH=str(path))
    assert policy_of(load_settings(environ)).harmless == (), "a file that is not there says nothing"

    code, said = run(environ, alert.fingerprint, "--note", "load test", "--until", "2030-01-01")
    assert (code, "LatencyAnomaly of checkout /pay" in said) == (0, True), said
    (word,) = policy_of(load_settings(environ)).harmless
    assert word == Harmless("LatencyAnomaly", "checkout", "/pay", 1_240.0, 180.0, until_ms=1_893_456_000_000)
    quiet = Shard(config=policy_of(load_settings(environ)))
    assert quiet.slide(5, latency=3.0) == []

    assert run(environ, alert.fingerprint, "--any-value")[0] == 0
    assert [word.value for word in policy_of(load_settings(environ)).harmless] == [1_240.0, None]
    code, said = run(environ, "0123456789abcdef")
    assert (code, "has no alert '0123456789abcdef'" in said) == (1, True), said


def test_feedback_without_a_file_to_write_to_is_refused() -> None:
    code, said = run({}, "0123456789abcdef")
    assert code == 2
    assert "TAILMARK_ALERTS__FEEDBACK_PATH must name a file" in said


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2 is no word on an alert"),
        ('{"alertname": "LatencyAnomaly"}', "missing required field `service`"),
        ('{"alertname": "Other", "service": "s"}', "line 2 must name one of"),
        ('{"alertname": "LatencyAnomaly", "service": "s", "vlaue": 3}', "unknown field `vlaue`"),
    ],
)
def test_line_that_is_no_word_stops_the_flow_with_its_number(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "feedback.ndjson"
    path.write_text(f"\n{line}\n")
    with pytest.raises(SettingsError, match=reason) as caught:
        policy_of(load_settings({"TAILMARK_ALERTS__FEEDBACK_PATH": str(path)}))
    assert str(caught.value).isprintable()

"""`tailmark dlq` on a real Kafka: what was rejected is shown, and sent back once."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from confluent_kafka.admin import AdminClient

from operators.kernels.decode import Reason
from tests.dirty_log import START_MS, dirty_log, event
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import NewRecord, create_topic, end_offsets, produce, read_topic, topic_names
from tests.oracle import Oracle

if TYPE_CHECKING:
    from tests.cli.conftest import Command
    from tests.conftest import KafkaCluster, Topics
    from tests.kafka_log import LogRecord

ROOT = Path(__file__).parents[2]
KAFKA_MS = START_MS + 3_600_000
LETTERS = 20_000
OWN = (("trace", b"t1"), ("id", b"mine"))


@pytest.fixture
def dlq(tailmark: Command) -> Command:
    """A function that runs `tailmark dlq`."""
    return lambda env, *arguments: tailmark(env, "dlq", *arguments)


def letter(topics: Topics, number: int, reason: str = "missing_field", *, topic: str | None = None) -> NewRecord:
    """A dead letter as the sink writes it."""
    headers = (
        *OWN,
        ("dlq.error.stage", b"validate"),
        ("dlq.error.reason", reason.encode()),
        ("dlq.error.message", b"[bold]what is wrong"),
        ("dlq.source.topic", (topic or topics.events).encode()),
        ("dlq.source.partition", b"%d" % (number % 4)),
        ("dlq.source.offset", b"%d" % number),
        ("dlq.source.timestamp_ms", b"%d" % (KAFKA_MS + number)),
        ("id", b"%d" % number),
        ("event-time-ms", b"1"),
    )
    return NewRecord(b'{"n": %d}' % number, b"k%d" % number, number % 4, headers)


def letters_in(kafka: KafkaCluster, topics: Topics, records: list[NewRecord]) -> dict[str, str]:
    create_topic(kafka.client_options, topics.dead_letter, partitions=4)
    produce(kafka.client_options, topics.dead_letter, records)
    return settings_for(kafka, topics)


def sent_back(kafka: KafkaCluster, topics: Topics) -> list[LogRecord]:
    return read_topic(kafka.client_options, topics.events)


def sent_so_far(kafka: KafkaCluster, topics: Topics) -> int:
    return sum(end_offsets(kafka.client_options, topics.events, isolation="read_uncommitted").values())


def test_letters_of_a_flow_are_shown_and_sent_back_as_they_came(
    kafka: KafkaCluster, topics: Topics, dlq: Command
) -> None:
    log, oracle, records = dirty_log(41, partitions=4, records=1500, span_ms=100_000), Oracle(), []
    for partition, values in enumerate(log):
        for offset, value in enumerate(values):
            records.append(NewRecord(value, b"k%d" % offset, partition, OWN, KAFKA_MS))
            oracle.record(partition, offset, value, KAFKA_MS)
    produce(kafka.client_options, topics.events, records)
    env = settings_for(kafka, topics, KAFKA__STOP_AT_END="true")
    assert FlowProcess(env).run()[0] == [0]
    code, text, _ = dlq(env, "inspect", "--samples", "1000", "--output", "json")
    summary = json.loads(text)
    assert (code, summary["letters"]) == (0, len(oracle.dead))
    found = {(s["partition"], s["offset"], s["item"]) for reason in summary["reasons"] for s in reason["samples"]}
    assert found == oracle.dead
    assert {(reason["first_ms"], reason["last_ms"]) for reason in summary["reasons"]} == {(KAFKA_MS, KAFKA_MS)}
    code, text, _ = dlq(env, "replay", "--output", "json")
    assert (code, sum(json.loads(text)["sent"].values())) == (0, len(oracle.dead))
    ends = [len(values) for values in log]
    back = [record for record in sent_back(kafka, topics) if record.offset >= ends[record.partition]]
    assert len(back) == len(oracle.dead)
    assert {record.headers for record in back} == {OWN}
    originals = Counter((p, b"k%d" % o) for p, o, _ in oracle.dead)
    assert Counter((record.partition, record.key) for record in back) == originals
    whole = Counter(log[p][o] for p, o, item in oracle.dead if item is None)
    assert whole <= Counter(record.value for record in back)


def test_reasons_are_chosen_counted_and_remembered_apart(kafka: KafkaCluster, topics: Topics, dlq: Command) -> None:
    mixed = [letter(topics, n, "wrong_type" if n % 3 else "malformed_json") for n in range(300)]
    other = letter(topics, 300, topic="another")
    env = letters_in(kafka, topics, [*mixed, other, NewRecord(b"not ours", b"", 0, (("dlq.item", b"--1"),))])
    code, text, _ = dlq(env, "inspect")
    assert code == 0
    lines = [line.split() for line in text.splitlines()]
    assert lines[1][:4] == ["wrong_type", "validate", "200", "0"]
    assert lines[2][:4] == ["malformed_json", "validate", "100", "0"]
    assert "[bold]what is wrong" in text
    assert '{"n": 299}' in text
    would_be = [
        "malformed_json: 100 would be sent",
        "wrong_type: 200 would be sent",
        f"300 letters would be sent to {topics.events}",
        "2 came from another topic, and stay",
    ]
    code, text, _ = dlq(env, "replay", "--dry-run")
    assert (code, text.splitlines()) == (0, would_be)
    assert sent_back(kafka, topics) == []
    assert f"{topics.dead_letter}.replayed" not in topic_names(kafka.client_options)
    assert "100 letters sent" in dlq(env, "replay", "--reason", "malformed_json")[1]
    assert [record.value for record in sent_back(kafka, topics) if record.partition == 0][:2] == [
        b'{"n": 0}',
        b'{"n": 12}',
    ]
    assert {record.headers for record in sent_back(kafka, topics)} == {OWN}
    counted = json.loads(dlq(env, "inspect", "--output", "json")[1])["reasons"]
    assert {reason["reason"]: reason["replayed"] for reason in counted if reason["replayed"]} == {"malformed_json": 100}
    text = dlq(env, "replay")[1]
    assert "200 letters sent" in text
    assert "100 were sent before" in text
    assert len(sent_back(kafka, topics)) == 300
    assert "0 letters sent" in dlq(env, "replay")[1]
    produce(kafka.client_options, topics.dead_letter, [letter(topics, 400, "malformed_json")])
    assert "1 letters sent" in dlq(env, "replay")[1]
    assert "301 letters sent" in dlq(env, "replay", "--again")[1]
    assert "0 letters sent" in dlq(env, "replay")[1]


def test_letters_that_were_mended_become_events(kafka: KafkaCluster, topics: Topics, dlq: Command) -> None:
    """The producers' field has another name: the flow is told, and what it rejected counts after all."""
    values = [event(START_MS + n, "pay").replace(b"latency_ms", b"took") for n in range(50)]
    produce(
        kafka.client_options, topics.events, [NewRecord(value, b"pay", 1, timestamp_ms=KAFKA_MS) for value in values]
    )
    env = settings_for(kafka, topics, KAFKA__STOP_AT_END="true")
    assert FlowProcess(env).run()[0] == [0]
    assert read_topic(kafka.client_options, topics.windows) == []
    assert "50 letters sent" in dlq(env, "replay")[1]
    assert FlowProcess({**env, "TAILMARK_EVENTS__FIELDS__LATENCY_MS": "took"}).run()[0] == [0]
    counts = [json.loads(record.value or b"")["count"] for record in read_topic(kafka.client_options, topics.windows)]
    assert max(counts) == 100, "those of the first time count as well, now that they are read from the beginning"


def test_replay_that_is_killed_again_and_again_sends_each_letter_once(
    kafka: KafkaCluster, topics: Topics, dlq: Command
) -> None:
    env = letters_in(kafka, topics, [letter(topics, n) for n in range(LETTERS)])
    moments = random.Random(5)
    command = [sys.executable, "-c", "from cli.main import main; main()", "dlq", "replay"]
    halfway = 0
    for _ in range(6):
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.PIPE)
        enough = sent_so_far(kafka, topics) + 2_000
        while process.poll() is None and sent_so_far(kafka, topics) < enough:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.communicate()
        halfway += 0 < sent_so_far(kafka, topics) < LETTERS
    assert halfway
    assert dlq(env, "replay")[0] == 0
    values = Counter(record.value for record in sent_back(kafka, topics))
    assert values == Counter(b'{"n": %d}' % number for number in range(LETTERS))


def test_topic_that_was_made_anew_is_not_taken_for_the_one_that_was_replayed(
    kafka: KafkaCluster, topics: Topics, dlq: Command
) -> None:
    env = letters_in(kafka, topics, [letter(topics, n) for n in range(10)])
    assert "10 letters sent" in dlq(env, "replay")[1]
    produce(kafka.client_options, f"{topics.dead_letter}.replayed", [NewRecord(b"not ours", b"key", 0)])
    admin = AdminClient(kafka.client_options)
    admin.delete_topics([topics.dead_letter])[topics.dead_letter].result(30)
    while topics.dead_letter in topic_names(kafka.client_options):
        time.sleep(0.1)
    letters_in(kafka, topics, [letter(topics, n) for n in range(20, 26)])
    assert "6 letters sent" in dlq(env, "replay")[1]


def test_what_can_not_be_done_is_one_line(kafka: KafkaCluster, topics: Topics, dlq: Command) -> None:
    env = settings_for(kafka, topics)
    code, _, said = dlq(env, "inspect")
    assert (code, said.count("\n")) == (1, 1)
    assert f"topic `{topics.dead_letter}` does not exist" in said
    code, _, said = dlq(env, "replay")
    assert (code, said.count("\n")) == (1, 1)
    code, _, said = dlq(env, "inspect", "--reason", "bad_luck")
    assert code == 2
    assert "missing_field" in said


def test_guide_explains_every_reason_that_a_flow_gives() -> None:
    guide = (ROOT / "docs" / "guide" / "dead-letters.md").read_text()
    table = guide[guide.index("| reason |") : guide.index("## The way back")]
    named = [
        word
        for line in table.splitlines()[2:]
        for word in re.findall(r"`([a-z_0-9]+)`", line.split("|")[1] if line else "")
    ]
    assert sorted(named) == sorted(get_args(Reason))

"""Offsets of groups without members, also in a cluster that is only just there."""

from __future__ import annotations

import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

from confluent_kafka import TopicPartition

from sinks.tail import store_baseline
from sources.clients import open_admin
from sources.groups import committed_offsets

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.kafka import EmbeddedKafka
    from tests.conftest import KafkaCluster, Topics

ASK_FOR_MANY = """
import sys
from confluent_kafka import TopicPartition
from sources.groups import committed_offsets
client = {"bootstrap.servers": sys.argv[1]}
print([committed_offsets(client, f"group-{number}", [TopicPartition("t", 0)]) for number in range(20)])
"""


def test_what_was_committed_is_read_and_what_was_not_is_left_out(kafka: KafkaCluster, topics: Topics) -> None:
    group = uuid.uuid4().hex
    admin, _ = open_admin(kafka.client_options)
    store_baseline(admin, group, topics.events, 2, 17)
    places = [TopicPartition(topics.events, number) for number in range(4)]
    assert committed_offsets(kafka.client_options, group, places) == {(topics.events, 2): 17}
    assert committed_offsets(kafka.client_options, f"{group}-other", places) == {}
    assert committed_offsets(kafka.client_options, group, []) == {}


def test_cluster_whose_coordinator_is_only_coming_up_is_asked_without_a_crash(
    start_kafka: Callable[..., EmbeddedKafka],
) -> None:
    broker = start_kafka()
    asking = [sys.executable, "-c", ASK_FOR_MANY, broker.bootstrap_servers]
    answered = subprocess.run(asking, capture_output=True, text=True, timeout=120, check=False)
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip() == str([{}] * 20)

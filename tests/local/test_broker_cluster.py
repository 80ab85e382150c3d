"""Three brokers: one can die, freeze or restart, and confirmed records stay."""

from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from local.errors import EmbeddedKafkaError
from local.kafka import EmbeddedKafka
from tests.kafka_log import create_topic, produce, read_topic


def test_confirmed_records_survive_a_killed_a_frozen_and_a_restarted_broker(
    start_kafka: Callable[..., EmbeddedKafka],
) -> None:
    # What counts here is that writing goes on, so a lost broker is noticed sooner than by default.
    kafka = start_kafka(brokers=3, properties={"broker.session.timeout.ms": "3000"})
    options = kafka.client_options
    create_topic(options, "replicated", partitions=3)
    made = AdminClient({**options}).list_topics("replicated", timeout=10).topics["replicated"].partitions
    assert {len(partition.replicas) for partition in made.values()} == {3}

    produce(options, "replicated", [b"all three"] * 3)
    kafka.kill(1)
    produce(options, "replicated", [b"two"] * 3)
    with pytest.raises(EmbeddedKafkaError, match="broker 1 does not run"):
        kafka.pid(1)
    kafka.start_broker(1)
    kafka.freeze(2)
    kafka.thaw(2)
    kafka.restart(3)
    produce(options, "replicated", [b"again three"] * 3)
    kafka.check()

    found = sorted(record.value or b"" for record in read_topic(options, "replicated"))
    assert found == sorted([b"all three"] * 3 + [b"two"] * 3 + [b"again three"] * 3)
    with pytest.raises(EmbeddedKafkaError, match="there is no broker 4"):
        kafka.kill(4)

"""Fixtures for tests of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.sources.reading import Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.conftest import KafkaCluster


@pytest.fixture
def opened() -> Iterator[Opened]:
    """A function that opens sources, which end with the test."""
    sources = Opened()
    yield sources
    sources.close()


@pytest.fixture
def delete_before(kafka: KafkaCluster) -> Callable[[str, Mapping[int, int]], None]:
    """A function that deletes what retention would: the records of a topic before an offset, by partition."""
    admin = AdminClient(dict(kafka.client_options))

    def delete(topic: str, offsets: Mapping[int, int]) -> None:
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        for deleted in admin.delete_records(wanted, request_timeout=15, operation_timeout=15).values():
            deleted.result(15)

    return delete

"""The topics that a flow writes to: created when they are missing, checked when they exist."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it exports
    ConfigResource,
    NewTopic,
    ResourceType,
)

from sources.clients import ANSWER_TIMEOUT_S, cluster_metadata, open_admin, reason
from sources.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka.admin import AdminClient

DEFAULT_PARTITIONS: Final = 4

HEADER_ROOM_BYTES: Final = 64 * 1024
"""What a dead letter may be larger than the record that it holds: the headers that say what was wrong with it."""

_LOG: Final = logging.getLogger(__name__)
_BROKER_DEFAULT: Final = -1
_KAFKA_MESSAGE_BYTES: Final = 1_048_588
_MESSAGE_BYTES: Final = "max.message.bytes"
_COMPACTION_LAG_MS: Final = 24 * 3600 * 1000
_POLL_S: Final = 0.1


class TopicError(OutputError):
    """A topic that can't be created."""


@dataclass(frozen=True, slots=True)
class OutputTopic:
    """A topic that a flow writes to.

    Attributes:
        name: Its name.
        compacted: Whether only the latest record of each key is kept. The youngest day is kept whole, because a
            resumed sink looks for its own records there.
        holds: Another topic, whose records it should be able to take with further headers; None for none.
        gather_s: How long its records may wait for more, so that fewer transactions are needed.
    """

    name: str
    compacted: bool = False
    holds: str | None = None
    gather_s: float = 0.0


def ensure_topics(
    client: Mapping[str, Any],
    topics: Sequence[OutputTopic],
    *,
    partitions: int = DEFAULT_PARTITIONS,
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> dict[str, int]:
    """Create the topics that are missing.

    Safe to be called by several processes at once. Existing topics are left as they are; a warning tells of one that
    would not take every record that it is to hold.

    Args:
        client: Options in librdkafka's spelling, brokers included.
        topics: What the flow writes to.
        partitions: How many partitions a new topic gets. Its replication is the broker's default.
        timeout_s: How long each answer of the cluster may take.

    Returns:
        The number of partitions of each topic.

    Raises:
        ClusterUnavailableError: Kafka did not answer, or did not let us in.
        TopicError: A topic can't be created.
    """
    admin, reasons = open_admin(client)
    present = cluster_metadata(admin, reasons, client, timeout_s=timeout_s).topics
    try:
        for topic in topics:
            needed = 0 if topic.holds is None else _message_bytes(admin, topic.holds, timeout_s) + HEADER_ROOM_BYTES
            if topic.name not in present:
                _create(admin, topic, partitions, needed, timeout_s)
            elif needed and _message_bytes(admin, topic.name, timeout_s) < needed:
                # It fits all but the largest, and topics that somebody else created have the same limit everywhere.
                _LOG.warning(
                    "topic `%s` has a %s below %d: the largest records of `%s`, should they be rejected, would not fit "
                    "into it with their headers, and the flow would stop there",
                    topic.name,
                    _MESSAGE_BYTES,
                    needed,
                    topic.holds,
                )
    except KafkaException as error:
        raise TopicError(f"output topics can't be created: {reason(error, client)}") from error
    deadline = time.monotonic() + timeout_s
    while True:
        found = cluster_metadata(admin, reasons, client, timeout_s=timeout_s).topics
        counts = {topic.name: len(found[topic.name].partitions) for topic in topics if topic.name in found}
        missing = [topic.name for topic in topics if not counts.get(topic.name)]
        if not missing:
            return counts
        if time.monotonic() >= deadline:
            raise TopicError(f"topic `{missing[0]}` was created but did not appear within {timeout_s:g} s")
        time.sleep(_POLL_S)


def _create(admin: AdminClient, topic: OutputTopic, partitions: int, needed_bytes: int, timeout_s: float) -> None:
    """Create one topic; that another process was quicker is no error."""
    settings = {"cleanup.policy": "delete"}
    if topic.compacted:
        settings = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(_COMPACTION_LAG_MS)}
    if needed_bytes:
        # The limit is on compressed bytes, and the producer of the events may have compressed better than the sink.
        settings[_MESSAGE_BYTES] = str(2 * needed_bytes)
    new = NewTopic(topic.name, partitions, _BROKER_DEFAULT, config=settings)
    try:
        admin.create_topics([new], operation_timeout=timeout_s, request_timeout=timeout_s)[topic.name].result(timeout_s)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise TopicError(f"topic `{topic.name}` can't be created: {error.args[0].str()}") from error


def _message_bytes(admin: AdminClient, topic: str, timeout_s: float) -> int:
    """Ask for the largest batch a topic takes; Kafka's default when there is no such topic, or we may not ask."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        answer = admin.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s)
    except KafkaException as error:
        codes = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED}
        if error.args[0].code() in codes:
            return _KAFKA_MESSAGE_BYTES
        raise
    return int(answer[_MESSAGE_BYTES].value)

"""Kafka clients: how they are built, what they log, and errors that a person understands."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from sources.errors import ClusterUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka.admin._metadata import ClusterMetadata

ANSWER_TIMEOUT_S: Final = 10.0
"""How long a broker may take to answer a question about topics, offsets or settings."""

PASSING: Final = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._TRANSPORT,  # noqa: SLF001 - librdkafka's own codes are spelled so
}
"""What a cluster answers while a topic is being created or a broker starts; librdkafka does not ask again by itself."""

TAKEN_OVER: Final = {
    KafkaError._FENCED,  # noqa: SLF001 - librdkafka's own codes are spelled so
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
"""What a producer is told whose transactional id another one has begun to use."""

REPEAT_AFTER_S: Final = 60.0
"""How long a complaint is not logged again, whichever client has it: each has dozens of connections that fail alike."""

_MAX_COMPLAINTS: Final = 1000
_SLICE_S: Final = 0.5
_RETRY_S: Final = 0.1
_SECRET_NAME: Final = re.compile(r"pass|secret|token|credential|private|pem$|jaas|oauthbearer.config|key$")
_SPEAKER: Final = re.compile(r"^\w+ (?:\[[^\]]*\] ?)+: ")
_DECORATION: Final = re.compile(r"^\S+/(?:bootstrap|\d+): | \(after \d+ms in state \w+.*?\)$")
_NORMAL: Final = (
    "while another concurrent operation on the same transaction",  # how a crashed predecessor is fenced off
    "property and will be ignored by this",  # one set of options serves producers and consumers
)
_REFUSED: Final = {KafkaError._AUTHENTICATION, KafkaError._SSL}  # noqa: SLF001 - librdkafka's own codes are spelled so
_T = TypeVar("_T")


class _Redaction(logging.Filter):
    """Takes the secrets of one client's options, and what is normal, out of what librdkafka logs."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        super().__init__()
        self._client = dict(client)

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage(), self._client), ()
        if any(text in record.msg for text in _NORMAL):
            return False
        return record.levelno < logging.WARNING or _is_news(record.msg, time.monotonic())


_said_s: Final[dict[str, float]] = {}


def _is_news(text: str, now_s: float) -> bool:
    """Tell whether a complaint was not logged for a while, whoever it was from and however long it took."""
    complaint = _DECORATION.sub("", _SPEAKER.sub("", text))
    if now_s - _said_s.get(complaint, float("-inf")) < REPEAT_AFTER_S:
        return False
    if len(_said_s) >= _MAX_COMPLAINTS:
        _said_s.clear()
    _said_s[complaint] = now_s
    return True


class Reasons:
    """Remembers what a client complained about, because the calls that fail only say that they timed out.

    Attributes:
        last: The latest complaint, without librdkafka's prefix and timing; empty before the first.
        refused: Whether it was about a certificate or a password, which waiting does not cure.
    """

    def __init__(self) -> None:
        self.last = ""
        self.refused = False

    def __call__(self, error: KafkaError) -> None:
        """Take an error from librdkafka; a refusal outweighs what follows from it."""
        if self.refused or error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - as above
            return
        self.last, self.refused = _DECORATION.sub("", error.str()), error.code() in _REFUSED


def redacted(text: str, client: Mapping[str, Any]) -> str:
    """Take secrets out of a text.

    Args:
        text: What librdkafka said.
        client: The options of its client; the values of those named after secrets are hidden.

    Returns:
        The text with `***` for each secret.
    """
    for name, value in client.items():
        if isinstance(value, str) and value and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return text


def reason(error: BaseException, client: Mapping[str, Any]) -> str:
    """Say in one line, without secrets, what a Kafka client objected to.

    Args:
        error: What it raised.
        client: Its options.

    Returns:
        The text of the error.
    """
    cause = error.args[0] if isinstance(error, KafkaException) and error.args else None
    text = cause.str() if isinstance(cause, KafkaError) else str(error)
    return redacted(" ".join(text.split()), client)


def with_log(client: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the options of a client that logs through Python, without secrets.

    Args:
        client: Options in librdkafka's spelling, brokers included.
        overrides: Further ones that win over them.

    Returns:
        Options for a constructor of confluent-kafka.
    """
    logger = logging.Logger("tailmark.kafka")  # noqa: LOG001 - one for each client, because each has its own secrets
    logger.parent = logging.getLogger("tailmark")
    logger.addFilter(_Redaction(client))
    return {**client, **overrides, "logger": logger}


def open_admin(client: Mapping[str, Any]) -> tuple[AdminClient, Reasons]:
    """Build a client for questions about topics, and what remembers why it got no answer.

    Args:
        client: Options in librdkafka's spelling, brokers included.

    Returns:
        The client, which has not connected yet, and its complaints so far.
    """
    reasons = Reasons()
    return AdminClient(with_log(client, {"error_cb": reasons, "log_level": 0})), reasons


def cluster_metadata(
    admin: AdminClient, reasons: Reasons, client: Mapping[str, Any], *, timeout_s: float | None = None
) -> ClusterMetadata:
    """Ask for all topics and their partitions.

    Args:
        admin: From `open_admin`.
        reasons: Likewise.
        client: The options of `admin`, for the error.
        timeout_s: How long to wait for an answer, `ANSWER_TIMEOUT_S` unless said; a refusal of certificate or password
            ends it at once.

    Returns:
        What the cluster says of itself.

    Raises:
        ClusterUnavailableError: There was no answer.
    """
    timeout_s = ANSWER_TIMEOUT_S if timeout_s is None else timeout_s
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return admin.list_topics(timeout=_SLICE_S)
        except KafkaException as error:
            admin.poll(0)
            if reasons.refused:
                raise ClusterUnavailableError(unavailable(client, f"refused us: {reasons.last}")) from None
            if time.monotonic() >= deadline:
                why = reasons.last or reason(error, client)
                raise ClusterUnavailableError(
                    unavailable(client, f"did not answer within {timeout_s:g} s: {why}")
                ) from None


def unavailable(client: Mapping[str, Any], what: str) -> str:
    """Build the one line that says which cluster did what.

    Args:
        client: Options with `bootstrap.servers`.
        what: The end of the sentence.

    Returns:
        The line, without secrets.
    """
    return redacted(f"kafka at {client['bootstrap.servers']} {what}", client)


def persistently(ask: Callable[[], _T]) -> _T:
    """Ask a question again while the answer may only be too early.

    Args:
        ask: Asks the cluster once.

    Returns:
        Its answer.

    Raises:
        KafkaException: The cluster refused, or did not come round in time.
    """
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            passing = error.args[0].retriable() or error.args[0].code() in PASSING
            if not passing or time.monotonic() >= deadline:
                raise
        time.sleep(_RETRY_S)

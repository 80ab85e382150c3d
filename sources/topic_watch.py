"""Which topic has a name: one that was deleted and made anew has the same one, and offsets that mean other records."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from sources.clients import ANSWER_TIMEOUT_S, open_admin, reason
from sources.errors import SourceError
from sources.topic import check_same

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from confluent_kafka.admin import AdminClient

WATCH_EVERY_S: Final = 10.0
"""How often it is asked whether a topic is still the one it was at the start; nothing else would tell."""

_CERTAIN: Final = 2
_GONE: Final = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID}


class TopicWatch:
    """Asks for the id of a topic, at first waiting for the answer, then now and then while the source goes on.

    Attributes:
        topic_id: 32 hex digits; None when the broker is too old to have ids.
    """

    def __init__(self, client: Mapping[str, Any], topic: str, *, once: bool) -> None:
        """Find out which topic it is.

        Args:
            client: How to reach the brokers, in librdkafka's spelling.
            topic: Name of the topic.
            once: Whether to leave it at the first answer: one of the sources of a process has to look out for all.

        Raises:
            SourceError: A broker does not answer in time.
        """
        self._topic = topic
        self._admin: AdminClient | None
        self._admin, _ = open_admin(client)
        self._asked_at_s = time.monotonic()
        self._answer: Future[Any] | None = None
        self._missed = 0
        try:
            self.topic_id = _id_in(self._ask(self._admin).result(2 * ANSWER_TIMEOUT_S))
        except (KafkaException, TimeoutError) as error:
            why = reason(error, client) or "no answer in time"
            raise SourceError(f"kafka did not tell which topic `{topic}` is: {why}; nothing was read") from error
        if once:
            self._admin = None

    def check(self) -> bool:
        """Look at the latest answer, and ask again when it is time; never waits.

        Returns:
            Whether there was a new answer.

        Raises:
            SourceError: The topic was deleted, or deleted and made anew.
        """
        answered = False
        if self._answer is not None and self._answer.done():
            answered = self._look_at(self._answer)
            self._answer = None
        over = time.monotonic() - self._asked_at_s >= WATCH_EVERY_S
        if self._admin is not None and self._answer is None and over:
            self._asked_at_s = time.monotonic()
            self._answer = self._ask(self._admin)
        return answered

    def _ask(self, admin: AdminClient) -> Future[Any]:
        topics = TopicCollection([self._topic])
        answer: Future[Any] = admin.describe_topics(topics, request_timeout=ANSWER_TIMEOUT_S)[self._topic]
        return answer

    def _look_at(self, answer: Future[Any]) -> bool:
        """Tell whether it is an answer of a broker, and not a guess of the client."""
        error = answer.exception()
        if error is None:
            self._missed = 0
            check_same(self._topic, self.topic_id, _id_in(answer.result()))
            return True
        code = error.args[0].code() if isinstance(error, KafkaException) else KafkaError._FAIL  # noqa: SLF001 - librdkafka's own codes begin with an underscore
        if code in _GONE:
            # Once may be a broker that has just started; an answer that does not come says nothing.
            self._missed += 1
            if self._missed >= _CERTAIN:
                raise SourceError(
                    f"topic `{self._topic}` was deleted while it was read, so there is nothing more to read"
                )
        return bool(code >= 0)


def _id_in(description: Any) -> str | None:  # noqa: ANN401 - confluent-kafka names the type, but not where it is
    """Spell the id of a described topic."""
    number = description.topic_id
    halves = number.get_most_significant_bits(), number.get_least_significant_bits()
    return None if halves == (0, 0) else "".join(f"{half % (1 << 64):016x}" for half in halves)

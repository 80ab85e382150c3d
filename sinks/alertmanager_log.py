"""Reads the alert topics of a flow for those who tell Alertmanager: all that is open, then whatever is committed."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from operators.kernels.decode import UNDECODABLE
from operators.kernels.encode import AlertRecord
from sinks.alertmanager_episodes import LOOKBACK_MS, EpisodeId
from sinks.records import ID_HEADER
from sources.clients import ANSWER_TIMEOUT_S, reason, redacted, with_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sinks.alertmanager_episodes import AlertEpisodes

_LOG: Final = logging.getLogger("tailmark.alertmanager")
_BATCH_RECORDS: Final = 1_000
_POLL_S: Final = 0.25
_AGAIN_S: Final = 5.0
_LAST_READS: Final = 2
_OPTIONS: Final = {
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "auto.offset.reset": "latest",  # what retention took away is too old to be told
    "fetch.wait.max.ms": 250,
}
_Place = tuple[str, int]
_DECODER: Final = msgspec.json.Decoder(AlertRecord)


class AlertLog:
    """Follows both alert topics in a thread of its own.

    Reading what was committed, and not what flows, is what makes delivery as exact as the topics: after a crash the
    flow goes back to its snapshot, and what it would say of the time until the crash is old.
    """

    def __init__(
        self,
        client: Mapping[str, Any],
        group: str,
        topics: tuple[str, str],
        episodes: AlertEpisodes,
        *,
        changed: Callable[[], None],
    ) -> None:
        """Prepare to read.

        Args:
            client: Options in librdkafka's spelling, brokers included.
            group: A consumer group to name; it is neither joined nor committed to.
            topics: The one with all transitions, and the compacted one with what is open.
            episodes: Where transitions go.
            changed: Called after news, and when `synced` becomes true.
        """
        self._client = client
        self._transitions, self._states = topics
        self._episodes = episodes
        self._changed = changed
        self._consumer = Consumer(with_log(client, {**_OPTIONS, "group.id": group}))
        self._past: dict[_Place, int] = {}
        self._unread: set[_Place] = set()
        self._complaints: set[str] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._synced = False

    @property
    def synced(self) -> bool:
        """Whether all was read that had been there when this process started, and the reading goes on.

        Nobody is told of alerts any more when it does not, so that it is noticed: on the page, deliveries stop.
        """
        alive = self._thread is not None and self._thread.is_alive()
        return self._synced and (alive or self._stopping.is_set())

    def start(self) -> None:
        """Find out what is there already, and begin to read; to be called before the flow writes anything."""
        places = self._places()
        self._thread = threading.Thread(target=self._run, args=(places,), name="tailmark-alert-log", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Read what is there, and stop.

        Args:
            timeout_s: How long that may take.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, places: list[TopicPartition] | None) -> None:
        """Read for ever; a Kafka that does not say where to begin is asked again."""
        try:
            while places is None:
                if self._stopping.wait(_AGAIN_S):
                    return
                places = self._places()
            self._unread = set(self._past)
            self._consumer.assign(places)
            while not self._stopping.is_set():
                self._read(self._consumer.consume(_BATCH_RECORDS, _POLL_S))
            for _ in range(_LAST_READS):
                self._read(self._consumer.consume(_BATCH_RECORDS, _POLL_S))
        finally:
            self._consumer.close()

    def _places(self) -> list[TopicPartition] | None:
        """Find where to begin: states from the beginning, as they are compacted, and transitions of late."""
        since_ms = int(time.time() * 1_000) - LOOKBACK_MS
        try:
            states = [TopicPartition(self._states, part, OFFSET_BEGINNING) for part in self._parts(self._states)]
            late = [TopicPartition(self._transitions, part, since_ms) for part in self._parts(self._transitions)]
            found = self._consumer.offsets_for_times(late, timeout=ANSWER_TIMEOUT_S)
            ends = {
                (place.topic, place.partition): self._consumer.get_watermark_offsets(place, ANSWER_TIMEOUT_S)[1]
                for place in states + late
            }
        except KafkaException as error:
            self._complain(reason(error, self._client))
            return None
        for place in found:
            if place.error is not None:
                self._complain(place.error.str())
                return None
            if place.offset < 0:
                place.offset = ends[place.topic, place.partition]
        self._past = ends
        return states + found

    def _complain(self, why: str) -> None:
        """Log what is in the way, once."""
        if why not in self._complaints:
            self._complaints.add(why)
            _LOG.warning("alerts can't be read from Kafka, so Alertmanager is not told of new ones: %s", why)

    def _parts(self, topic: str) -> list[int]:
        metadata = self._consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        return sorted(metadata.partitions)

    def _read(self, messages: list[Message]) -> None:
        news = False
        for message in messages:
            error = message.error()
            if error is None:
                news |= self._take(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own codes are spelled so
                self._unread.discard(_place(message))
            elif not error.retriable():
                self._complain(redacted(error.str(), self._client))
        if not self._synced and not self._unread:
            self._synced = news = True
        if news:
            self._changed()

    def _take(self, message: Message) -> bool:
        """Hand over one record; one that is not ours, or of another schema, is passed over."""
        value, written_ms = message.value(), message.timestamp()[1]
        past = (message.offset() or 0) < self._past[_place(message)]
        if value is not None:
            try:
                record = _DECODER.decode(value)
            except UNDECODABLE:
                return False
            self._episodes.take(record, written_ms, past=past)
            return True
        name = dict(message.headers() or ()).get(ID_HEADER)
        parts = name.decode(errors="replace").split("|") if isinstance(name, bytes) else []
        try:
            fingerprint, starts_at_ms, _ = parts
            episode = EpisodeId(fingerprint, int(starts_at_ms))
        except ValueError:
            return False
        self._episodes.close(episode, written_ms, past=past)
        return True


def _place(message: Message) -> _Place:
    return message.topic() or "", message.partition() or 0

"""Watch the pipeline as an outsider can: committed records of its topics, and its Prometheus page."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from local.demo.board import AlertRecord, Board, TruthRecord, Vitals, WindowRecord
from local.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.settings import TopicSettings

ANSWER_TIMEOUT_S: Final = 10.0
PAGE_TIMEOUT_S: Final = 0.5
SAMPLE_EVERY_S: Final = 0.5
BATCH_RECORDS: Final = 2_000
"""Records that are taken at once, at most: the view goes on even while it catches up."""

SETTLE_S: Final = 5.0
QUIET_S: Final = 1.0
"""Silence that means that nothing more will come."""

_RATE_WEIGHT: Final = 0.4
"""Part that the newest sample has in the shown rate: steady enough to be read."""


class Feed:
    """Reads everything that a board shows.

    Args:
        client: Options of a Kafka client.
        topics: Names of the topics, which exist.
        page_url: Address of the flow's Prometheus page, which may not answer.
        board: Gets what is read.

    Attributes:
        board: The same.

    Raises:
        KafkaException: Kafka doesn't answer.
    """

    def __init__(self, client: Mapping[str, Any], topics: TopicSettings, *, page_url: str, board: Board) -> None:
        self.board = board
        self._page_url = page_url
        self._topics = topics
        self._windows = msgspec.json.Decoder(WindowRecord)
        self._alerts = msgspec.json.Decoder(AlertRecord)
        self._truth = msgspec.json.Decoder(TruthRecord)
        self._sampled_s = 0.0
        self._consumer = Consumer(
            {
                **client,
                "group.id": "tailmark-demo-view",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
                "log_level": 0,
            }
        )
        watched = (topics.windows, topics.alerts, topics.truth, topics.dead_letter)
        self._consumer.assign(
            [TopicPartition(topic, number, OFFSET_BEGINNING) for topic in watched for number in self._parts(topic)]
        )
        self._events = [TopicPartition(topics.events, number) for number in self._parts(topics.events)]

    def close(self) -> None:
        """Stop watching."""
        self._consumer.close()

    def poll(self, timeout_s: float) -> bool:
        """Take what came, and now and then the numbers.

        Args:
            timeout_s: How long to wait for a record.

        Returns:
            Whether something came.

        Raises:
            DemoError: A record is not what the contract says.
        """
        now_s = time.monotonic()
        if now_s - self._sampled_s >= SAMPLE_EVERY_S:
            self.sample()
        first = self._consumer.poll(timeout_s)
        if first is None:
            return False
        for message in [first, *self._consumer.consume(BATCH_RECORDS, 0.0)]:
            value = message.value()
            if message.error() is None and value is not None:
                self._take(message.topic(), value)
        return True

    def settle(self) -> None:
        """Wait until the flow has nothing more to say about what was sent, for `SETTLE_S` at most."""
        begun_s = heard_s = time.monotonic()
        while time.monotonic() < min(begun_s + SETTLE_S, heard_s + QUIET_S):
            if self.poll(QUIET_S / 10):
                heard_s = time.monotonic()
        self.sample()

    def sample(self) -> Vitals:
        """Read the numbers that no record tells, and return them."""
        now_s = time.monotonic()
        before = self.board.vitals
        sent = self._sent(before.sent)
        per_s = before.sent_per_s
        if self._sampled_s:
            newest = (sent - before.sent) / max(now_s - self._sampled_s, 1e-3)
            per_s = newest if not per_s else per_s + _RATE_WEIGHT * (newest - per_s)
        page = self._page()
        self._sampled_s = now_s
        self.board.vitals = Vitals(
            sent=sent,
            sent_per_s=per_s,
            accepted=page.get("accepted", before.accepted),
            late=page.get("late", before.late),
            dead_letters=page.get("dead_letter", before.dead_letters),
            lag_events=page.get("lag"),
        )
        return self.board.vitals

    def _take(self, topic: str | None, value: bytes) -> None:
        try:
            if topic == self._topics.windows:
                self.board.take_window(self._windows.decode(value))
            elif topic == self._topics.alerts:
                self.board.take_alert(self._alerts.decode(value))
            elif topic == self._topics.truth:
                self.board.take_truth(self._truth.decode(value))
            else:
                self.board.dead_letters += 1
        except msgspec.DecodeError as error:
            raise DemoError(f"a record of {topic} is not what the contract says: {error}") from error

    def _parts(self, topic: str) -> list[int]:
        found = self._consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
        return sorted(found.partitions)

    def _sent(self, before: int) -> int:
        """Count the records in the events topic; what was known before where the broker doesn't answer in time."""
        try:
            ends = [self._consumer.get_watermark_offsets(part, timeout=PAGE_TIMEOUT_S) for part in self._events]
        except KafkaException:
            return before
        return sum(high for _, high in ends)

    def _page(self) -> dict[str, int]:
        """Read the flow's page; empty where there is none."""
        try:
            with urllib.request.urlopen(self._page_url, timeout=PAGE_TIMEOUT_S) as answer:  # noqa: S310 - our own URL
                text = answer.read().decode()
        except (urllib.error.URLError, OSError, ValueError):
            return {}
        return page_numbers(text)


def page_numbers(text: str) -> dict[str, int]:
    """Take what the view shows from a Prometheus page of the flow.

    Args:
        text: The page in Prometheus's text format.

    Returns:
        Events by outcome (`accepted`, `late`, `dead_letter`, `heartbeat`), and `lag` in events; without those that the
        page doesn't have.
    """
    numbers: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "tailmark_events_total":
                outcome = sample.labels["outcome"]
                numbers[outcome] = numbers.get(outcome, 0) + int(sample.value)
            elif sample.name == "tailmark_lag_events":
                numbers["lag"] = numbers.get("lag", 0) + int(sample.value)
    return numbers

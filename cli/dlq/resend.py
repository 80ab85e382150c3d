"""Send dead letters back to where they came from, each once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaException, Producer

from cli.dlq.letters import read_letters
from cli.dlq.memory import Memory
from sources.clients import TAKEN_OVER, with_log
from sources.clients import reason as reason_of
from sources.errors import OutputError
from sources.topic import partitions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cli.dlq.letters import Letter
    from flows.settings import Settings

BATCH_LETTERS: Final = 1_000
"""How many letters share a transaction."""

_CHOSEN_BY_KEY: Final = -1
_FULL_WAIT_S: Final = 0.1
_TIMEOUT_S: Final = 60.0
_MOST_BYTES: Final = 64 * 1024 * 1024


@dataclass(slots=True)
class Resent:
    """What became of the letters.

    Attributes:
        sent: By reason: letters sent back, or that would be.
        known: By reason: letters that had been sent back before.
        foreign: Letters that came from another topic, or that are none.
    """

    sent: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    foreign: int = 0


class Resender:
    """Puts letters and the memory of them into one transaction."""

    def __init__(self, settings: Settings) -> None:
        """Shut out whoever else sends letters back.

        Args:
            settings: Where the events go.

        Raises:
            OutputError: Kafka does not let us.
        """
        self._client: Mapping[str, Any] = settings.client()
        self._topic = settings.kafka.topics.events
        self._partitions = set(partitions_of(self._client, self._topic))
        own = {
            "transactional.id": f"tailmark-dlq-replay.{settings.kafka.topics.dead_letter}",
            "enable.idempotence": True,
            "acks": "all",
        }
        self._producer = Producer(with_log({"message.max.bytes": _MOST_BYTES, **self._client}, own))
        self._guarded(lambda: self._producer.init_transactions(_TIMEOUT_S))

    def send(self, letters: Sequence[Letter], memory: Memory) -> None:
        """Send letters, and remember it; all of them, or none.

        Args:
            letters: In the order of each partition.
            memory: What was sent; was read when others had been shut out.

        Raises:
            OutputError: Kafka takes them not, or somebody else sends letters back.
        """
        self._guarded(lambda: self._send(letters, memory))

    def _send(self, letters: Sequence[Letter], memory: Memory) -> None:
        upto: dict[tuple[int, str], int] = {}
        self._producer.begin_transaction()
        for letter in letters:
            self._produce(letter)
            upto[letter.partition, letter.reason] = letter.offset + 1
        memory.write(self._producer, upto)
        self._producer.commit_transaction(_TIMEOUT_S)

    def _produce(self, letter: Letter) -> None:
        partition = letter.source_partition if letter.source_partition in self._partitions else _CHOSEN_BY_KEY
        while True:
            try:
                self._producer.produce(self._topic, letter.value, letter.key, partition, headers=list(letter.headers))
                break
            except BufferError:
                self._producer.poll(_FULL_WAIT_S)

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except KafkaException as error:
            if error.args[0].code() in TAKEN_OVER:
                raise OutputError("another `tailmark dlq replay` has begun and sends the rest; this one ends") from None
            raise OutputError(
                f"dead letters can't be sent to `{self._topic}`: {reason_of(error, self._client)}; those of earlier "
                f"batches were, and are not sent again"
            ) from error


def resend(
    settings: Settings, reasons: Collection[str], *, dry_run: bool, again: bool, progress: Callable[[int], None]
) -> Resent:
    """Send dead letters back.

    Args:
        settings: Where they are, and where they go.
        reasons: Those to send; empty for all.
        dry_run: Only tell what would be sent.
        again: Send those too that were sent before.
        progress: Told how many letters were looked at.

    Returns:
        What became of them.

    Raises:
        FlowError: Kafka does not answer, or takes them not.
    """
    client, topics = settings.client(), settings.kafka.topics
    partitions_of(client, topics.dead_letter)
    # Others are shut out first, so that what is read of the memory stays true.
    sender = None if dry_run else Resender(settings)
    memory = Memory(client, topics.dead_letter, create=not dry_run)
    found = Resent()
    waiting: list[Letter] = []
    for letters in read_letters(client, topics.dead_letter):
        for letter in letters:
            if reasons and letter.reason not in reasons:
                continue
            if letter.source_topic != topics.events:
                found.foreign += 1
            elif memory.knows(letter.partition, letter.reason, letter.offset) and not again:
                found.known[letter.reason] += 1
            else:
                found.sent[letter.reason] += 1
                waiting.append(letter)
        progress(len(letters))
        while sender is not None and len(waiting) >= BATCH_LETTERS:
            sender.send(waiting[:BATCH_LETTERS], memory)
            del waiting[:BATCH_LETTERS]
    if sender is not None and waiting:
        sender.send(waiting, memory)
    return found

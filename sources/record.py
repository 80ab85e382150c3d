"""What a consumed record is to us: the client's own type allows None where a consumer never gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from confluent_kafka import KafkaError


class Record(Protocol):
    """A record that was consumed, or a notice about its partition when `error` gives something."""

    def topic(self) -> str:
        """Name of the topic."""

    def partition(self) -> int:
        """Number of the partition."""

    def offset(self) -> int:
        """Offset in the partition; of a notice of its end, the end."""

    def timestamp(self) -> tuple[int, int]:
        """Kind of timestamp, and milliseconds since the epoch; -1 without one."""

    def key(self) -> bytes | None:
        """Bytes of the key."""

    def value(self) -> bytes | None:
        """Bytes of the value; None for a tombstone."""

    def headers(self) -> list[tuple[str, bytes]] | None:
        """Headers in order."""

    def error(self) -> KafkaError | None:
        """What the notice is about; None for a record."""

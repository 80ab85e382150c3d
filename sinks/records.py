"""What the encoders hand to a Kafka sink: the records of one shard, in columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ID_HEADER: Final = "id"
"""Header that carries a record's identity: what a resumed sink recognises its own records by. After all others."""

EVENT_TIME_HEADER: Final = "event-time-ms"
"""Header after the id of a frame's last record: the event time of all of them, by which a resumed sink expires ids."""

_Headers = list[list[tuple[str, bytes | None]]]
_Columns = tuple[list[bytes | None], list[bytes | None], list[bytes], _Headers | None, int]
_DECODER: Final = msgspec.msgpack.Decoder(_Columns)


@dataclass(frozen=True, slots=True)
class OutputRecords:
    """Records on their way to one output partition, in the order in which they are written.

    The columns have the same length n, which may be 0. They cross to other processes as one block of MessagePack:
    0.1 µs a record to write and 0.2 µs to read, against 0.65 and 0.2 for pickled lists.

    Attributes:
        keys: Key of each record; None for a record without one.
        values: Value of each record; None is a tombstone.
        ids: Identity of each record: unique in its topic, and the same whenever the same input is replayed.
        headers: Headers of each record besides its id and those of the sink; None when no record has any.
        expire_ms: Event time of the records. It tells the sink how far event time has come, so that it can forget ids
            that should have come back by now and did not.
    """

    keys: list[bytes | None]
    values: list[bytes | None]
    ids: list[bytes]
    headers: Sequence[Sequence[tuple[str, bytes | None]]] | None
    expire_ms: int

    def __post_init__(self) -> None:
        rows = len(self.ids)
        lengths = {len(self.keys), len(self.values), rows if self.headers is None else len(self.headers)}
        if lengths != {rows}:
            msg = f"columns of output records differ in length ({sorted(lengths | {rows})}), so records would be lost"
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> OutputRecords:
        """Pick records.

        Args:
            rows: Their indices.

        Returns:
            A frame of these, in the order of `rows`.
        """
        headers = self.headers
        return OutputRecords(
            keys=[self.keys[row] for row in rows],
            values=[self.values[row] for row in rows],
            ids=[self.ids[row] for row in rows],
            headers=None if headers is None else [headers[row] for row in rows],
            expire_ms=self.expire_ms,
        )

    def __reduce__(self) -> tuple[Callable[[bytes], OutputRecords], tuple[bytes]]:
        columns = (self.keys, self.values, self.ids, self.headers, self.expire_ms)
        return _from_bytes, (msgspec.msgpack.encode(columns),)


def _from_bytes(data: bytes) -> OutputRecords:
    """Read what `OutputRecords.__reduce__` wrote; its name is part of every message between processes."""
    return OutputRecords(*_DECODER.decode(data))

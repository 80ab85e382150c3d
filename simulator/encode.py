"""Requests as the records that Kafka gets: single events, JSON arrays or NDJSON, and heartbeats."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from zlib import crc32

import numpy as np
import polars as pl

from simulator.disorder import FAULTS, ITEM_FAULTS
from simulator.requests import STATUSES
from simulator.world import REGIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simulator.requests import Requests
    from simulator.world import World

FORMS: Final = ("single", "array", "ndjson")
ENCODINGS: Final = (*FORMS, "mixed")


CONTENTS: Final = ("events", "late", "duplicates", "malformed", "heartbeats")
"""What a record may hold, in the order of the columns of `Records.contents`: good events, those of them that were held
back for longer than a reader waits, copies of good events, items that must be rejected, heartbeats."""


@dataclass(slots=True, eq=False)
class Records:
    """Records in the order in which Kafka gets them, as columns of equal length n.

    Attributes:
        values: The bytes of each record.
        keys: The service, or None for a heartbeat.
        partitions: The partition of each record.
        arrival_ms: Event time at which Kafka gets it, never falling; it becomes the record's timestamp.
        contents: Shape (n, len(CONTENTS)), int32: how much of what each record holds.
    """

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)
    arrival_ms: list[int] = field(default_factory=list)
    contents: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, len(CONTENTS)), dtype=np.int32))

    def __len__(self) -> int:
        """Number of records."""
        return len(self.values)

    def part(self, first: int, last: int) -> Records:
        """Give the records from `first` up to `last`."""
        rows = slice(first, last)
        return Records(
            self.values[rows], self.keys[rows], self.partitions[rows], self.arrival_ms[rows], self.contents[rows]
        )


def concat(parts: Sequence[Records]) -> Records:
    """Put runs of records one after the other."""
    return Records(
        values=[value for part in parts for value in part.values],
        keys=[key for part in parts for key in part.keys],
        partitions=[partition for part in parts for partition in part.partitions],
        arrival_ms=[arrival_ms for part in parts for arrival_ms in part.arrival_ms],
        contents=np.concatenate([part.contents for part in parts]),
    )


def partition_of(service: bytes, partitions: int) -> int:
    """Choose the partition of a key as librdkafka does by default, so that other producers agree with this one."""
    return crc32(service) % partitions


def heartbeat(timestamp_ms: int) -> bytes:
    """Encode a heartbeat."""
    return b'{"timestamp_ms":%d,"heartbeat":true}' % timestamp_ms


def with_heartbeats(records: Records, start_ms: int, end_ms: int, every_ms: int, partitions: int) -> Records:
    """Put one heartbeat for each partition among the records, at every multiple of `every_ms` in [start, end).

    Heartbeats stand before records of the same arrival time. With `every_ms` 0 there are none.
    """
    if not every_ms:
        return records
    parts: list[Records] = []
    done = 0
    for beat in range(-(-start_ms // every_ms) * every_ms, end_ms, every_ms):
        position = bisect_left(records.arrival_ms, beat, lo=done)
        parts += [records.part(done, position), _heartbeats(beat, partitions)]
        done = position
    return concat([*parts, records.part(done, len(records))])


def _heartbeats(timestamp_ms: int, partitions: int) -> Records:
    """Make one heartbeat for each partition."""
    contents = np.zeros((partitions, len(CONTENTS)), dtype=np.int32)
    contents[:, CONTENTS.index("heartbeats")] = 1
    return Records(
        values=[heartbeat(timestamp_ms)] * partitions,
        keys=[None] * partitions,
        partitions=list(range(partitions)),
        arrival_ms=[timestamp_ms] * partitions,
        contents=contents,
    )


class Encoder:
    """Encodes the requests of one world.

    Everything that repeats is kept as ready text, one piece for each series, status and machine; a chunk of events is
    then one concatenation of columns, without a Python call for each event.
    """

    def __init__(
        self, world: World, *, partitions: int, encoding: str, batch_size: int, linger_ms: int, event_ids: bool
    ) -> None:
        """Prepare the pieces of text.

        Args:
            world: Where the requests come from.
            partitions: Number of partitions of the topic.
            encoding: One of `ENCODINGS`; `mixed` changes from one batch to the next.
            batch_size: Events in an array or NDJSON value, at most.
            linger_ms: How long an event waits for its batch to fill, at most.
            event_ids: Whether each event carries an `event_id`.

        Raises:
            ValueError: The encoding is unknown, or the batches would be empty.
        """
        if encoding not in ENCODINGS:
            message = f"`encoding` must be one of {', '.join(ENCODINGS)}; got {encoding!r}"
            raise ValueError(message)
        if batch_size < 1 or linger_ms < 1:
            message = (
                f"`batch_size` and `linger_ms` must be at least 1, or no batch fills; got {batch_size}, {linger_ms}"
            )
            raise ValueError(message)
        self._encoding = encoding
        self._batch_size = batch_size
        self._linger_ms = linger_ms
        self._event_ids = event_ids
        self._service = world.service
        self._keys = np.array([name.encode() for name in world.services], dtype=object)
        self._partition = np.array([partition_of(key, partitions) for key in self._keys], dtype=np.int64)
        self._series = pl.Series(
            [
                f',"service":"{world.services[service]}","endpoint":"{endpoint}","method":"{method}","latency_ms":'
                for service, endpoint, method in zip(world.service, world.endpoint, world.method, strict=True)
            ],
            dtype=pl.String,
        )
        self._status = pl.Series([f',"status":{status},"trace_id":"' for status in STATUSES])
        self._host = pl.Series(
            [f'","region":"{REGIONS[row % len(REGIONS)]}","host":"{host}"}}' for row, host in enumerate(world.hosts)]
        )
        self._digits = pl.Series([f"{number:04x}" for number in range(1 << 16)])

    def encode(self, requests: Requests, rng: np.random.Generator) -> Records:
        """Encode requests that are in order of arrival.

        Args:
            requests: In order of `arrival_ms`.
            rng: Chooses the encodings of a mixed stream.

        Returns:
            Records in order of arrival; a batch arrives with its last event.
        """
        service = self._service[requests.series]
        texts = self._texts(requests)
        if self._encoding != "single":
            return self._batched(texts, requests, service, rng)
        return Records(
            values=texts,
            keys=self._keys[service].tolist(),
            partitions=self._partition[service].tolist(),
            arrival_ms=requests.arrival_ms.tolist(),
            contents=_contents(requests),
        )

    def _texts(self, requests: Requests) -> list[bytes]:
        """Encode each request as the JSON text of one event."""
        trace = requests.trace.view(np.uint16).reshape(-1, 4)
        pieces = [
            pl.lit('{"timestamp_ms":'),
            pl.Series(requests.timestamp_ms).cast(pl.String),
            self._series.gather(requests.series),
            pl.Series(requests.latency_us / 1000).cast(pl.String),
            self._status.gather(requests.status),
            *(self._digits.gather(trace[:, column]) for column in range(4)),
            self._host.gather(requests.host),
        ]
        if self._event_ids:
            # Half of the trace id, so that a duplicate keeps its event id as it keeps everything else.
            pieces[-1:-1] = [pl.lit('","event_id":"'), *(self._digits.gather(trace[:, column]) for column in (1, 3, 2))]
        texts: list[bytes] = pl.select(pl.concat_str(pieces)).to_series().cast(pl.Binary).to_list()
        allowed = len(FAULTS) if self._encoding in {"single", "ndjson"} else ITEM_FAULTS
        for row in np.flatnonzero(requests.fault).tolist():
            texts[row] = FAULTS[(int(requests.fault[row]) - 1) % allowed](texts[row])
        return texts

    def _batched(
        self, texts: list[bytes], requests: Requests, service: NDArray[np.int32], rng: np.random.Generator
    ) -> Records:
        """Gather events of one service that arrive within `linger_ms` into batches."""
        slot = requests.arrival_ms // self._linger_ms
        order = np.lexsort((slot, service))
        new = np.flatnonzero((np.diff(service[order]) != 0) | (np.diff(slot[order]) != 0)) + 1
        bounds = [0, *new.tolist(), len(texts)]
        cuts = [cut for first, last in itertools.pairwise(bounds) for cut in range(first, last, self._batch_size)]
        rows = order.tolist()
        batches = [rows[first:last] for first, last in itertools.pairwise([*cuts, len(rows)])]
        if self._encoding == "mixed":
            forms = [FORMS[form] for form in rng.integers(0, len(FORMS), len(batches)).tolist()]
        else:
            forms = [self._encoding] * len(batches)
        groups = [
            (group, form)
            for batch, form in zip(batches, forms, strict=True)
            for group in ([[row] for row in batch] if form == "single" else [batch])
        ]
        # A group arrives with its last event, and rows are in order of arrival.
        groups.sort(key=lambda group: group[0][-1])
        return self._records(texts, requests, service, groups)

    def _records(
        self,
        texts: list[bytes],
        requests: Requests,
        service: NDArray[np.int32],
        groups: list[tuple[list[int], str]],
    ) -> Records:
        """Make one record of each group of rows."""
        if not groups:
            return Records()
        last = np.array([rows[-1] for rows, _ in groups])
        starts = np.cumsum([0, *(len(rows) for rows, _ in groups[:-1])])
        members = np.fromiter(itertools.chain.from_iterable(rows for rows, _ in groups), dtype=np.int64)
        return Records(
            values=[_join([texts[row] for row in rows], form) for rows, form in groups],
            keys=self._keys[service[last]].tolist(),
            partitions=self._partition[service[last]].tolist(),
            arrival_ms=requests.arrival_ms[last].tolist(),
            contents=np.add.reduceat(_contents(requests)[members], starts),
        )


def _contents(requests: Requests) -> NDArray[np.int32]:
    """Tell what each request is, in the columns of `CONTENTS`."""
    good = (requests.fault == 0) & ~requests.copy
    contents = np.zeros((len(requests), len(CONTENTS)), dtype=np.int32)
    for column, rows in enumerate((good, good & requests.late, requests.copy, requests.fault != 0)):
        contents[:, column] = rows
    return contents


def _join(texts: list[bytes], form: str) -> bytes:
    """Put events into one value."""
    if form == "array":
        return b"[" + b",".join(texts) + b"]"
    if form == "ndjson":
        return b"\n".join(texts) + b"\n"
    return texts[0]

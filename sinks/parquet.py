"""The Parquet sink: every row once in a dataset that can be read at any time while it is written.

Sink partition i owns the rows of topic partition i. They are staged with each snapshot, or sooner when there are many,
and published now and then, many snapshots in one file. What readers see is never changed and never taken away.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from operators.kernels.codec import pack, unpack
from operators.reporting import reported
from sinks.parquet_store import (
    ArchiveError,
    PartitionStore,
    anything_published,
    locked,
    sync_folder,
    write_durably,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STAGE_ROWS: Final = 50_000
"""How many rows of a partition are kept in memory at most before they are staged."""

_STATE_KIND: Final = "parquet-sink"
_STATE_VERSION: Final = 1
_LOOK_EVERY_S: Final = 0.5
_RECORD: Final = "archive.json"


@dataclass(slots=True)
class ArchiveCounts:
    """What a sink did since the process started, and what waits.

    Attributes:
        staged: Rows made durable.
        repeated: Rows that the archive had already, and that were dropped.
        published: Rows that readers see.
        files: Files that they are in.
        waiting: Rows that readers don't see yet.
        waiting_s: How long the oldest of these have waited, in seconds.
    """

    staged: int = 0
    repeated: int = 0
    published: int = 0
    files: int = 0
    waiting: int = 0
    waiting_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class ParquetSink(FixedPartitionedSink[pl.DataFrame, bytes]):
    """Writes rows to `hour=…/shard=…/` below a directory.

    Items are `(route, rows)`; the number after the route's last `-` is the topic partition of the rows, which have the
    columns of `archive_rows.SCHEMA` and come in log order.

    Attributes:
        path: Directory of the dataset; there is nothing in it but the folders of hours.
        partitions: How many partitions the topic has.
        shards: Number of shards that services are spread over.
        origin: What the rows come from; an archive of something else is refused.
        publish_every_s: How long rows may wait until readers see them.
        publish_rows: How many rows of a partition may wait until readers see them.
    """

    path: Path
    partitions: int
    shards: int
    origin: Mapping[str, Any]
    publish_every_s: float
    publish_rows: int
    _built: list[ArchivePartition] = field(default_factory=list, repr=False)
    _publisher: list[Publisher] = field(default_factory=list, repr=False)

    @property
    def staging(self) -> Path:
        """Directory of what readers don't see: beside the dataset, so that a scan of that finds nothing else."""
        return self.path.with_name(f"{self.path.name}.staging")

    @property
    def is_open(self) -> bool:
        """Whether a partition of this process may still be written."""
        return any(partition.store.is_open for partition in self._built)

    def prepare(self) -> None:
        """Make the directories, and check that the archive is one of the same origin.

        Raises:
            ArchiveError: It is another's, or can't be written.
        """
        with writing(self.path):
            for folder in (self.path, self.staging):
                folder.mkdir(parents=True, exist_ok=True)
            if self.path.stat().st_dev != self.staging.stat().st_dev:
                raise ArchiveError(
                    f"archive {self.path} is a file system of its own, and {self.staging} would be on another one, "
                    f"from which files can't be moved in one step; set archive.path to a directory inside"
                )
            with locked(self.staging / "lock"):
                self._check_files()
                _check_origin(self.path, self.staging / _RECORD, dict(self.origin))

    def list_parts(self) -> list[str]:
        """Name the partitions; names are padded so that their order is that of the numbers."""
        return [f"{index:05d}" for index in range(self.partitions)]

    def part_fn(self, item_key: str) -> int:
        """Choose the partition of a route, by its number."""
        return int(item_key.rpartition("-")[2])

    @reported
    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> ArchivePartition:  # noqa: ARG002
        """Open a partition.

        Raises:
            ArchiveError: It can't be written, or lacks rows that the snapshot says it has.
            StateError: The snapshot can't be read.
        """
        store = PartitionStore(self.path, self.staging, int(for_part), shards=self.shards)
        try:
            partition = ArchivePartition(self.path, store, int(for_part), resume_state)
        except BaseException:
            store.close()
            raise
        self._built.append(partition)
        if not self._publisher:
            self._publisher.append(Publisher(self))
            self._publisher[0].start()
        return partition

    def counts(self) -> ArchiveCounts:
        """Sum up what the partitions of this process did."""
        stores = [partition.store for partition in self._built]
        return ArchiveCounts(
            staged=sum(partition.staged for partition in self._built),
            repeated=sum(partition.repeated for partition in self._built),
            published=sum(store.published_rows for store in stores),
            files=sum(store.published_files for store in stores),
            waiting=sum(store.waiting_rows for store in stores),
            waiting_s=max((store.waiting_s() for store in stores), default=0.0),
        )

    def publish_due(self) -> None:
        """Publish the partitions of this process whose rows are many, or have waited for long.

        Raises:
            ArchiveError: The disk takes no more.
        """
        for partition in self._built:
            store = partition.store
            if store.waiting_rows >= self.publish_rows or store.waiting_s() >= self.publish_every_s:
                store.publish()

    def _check_files(self) -> None:
        """Check that the files and what is known of them are both there, or neither.

        Raises:
            ArchiveError: One of them is gone.
        """
        files = next(self.path.glob("hour=*/shard=*/*.parquet"), None) is not None
        if files and not (self.staging / _RECORD).exists():
            raise ArchiveError(
                f"archive {self.path} has files, but {self.staging}, which tells how far they go, is gone; put it "
                f"back, or set archive.path to another directory"
            )
        if not files and anything_published(self.staging):
            raise ArchiveError(
                f"archive {self.path} has lost all its files, but {self.staging} tells that there were some; put them "
                f"back, or delete both directories to begin a new archive"
            )


class ArchivePartition(StatefulSinkPartition[pl.DataFrame, bytes]):
    """The rows of one topic partition on their way to the disk.

    Attributes:
        store: The disk.
        staged: Rows made durable.
        repeated: Rows that the archive had already.
    """

    def __init__(self, path: Path, store: PartitionStore, number: int, resume_state: bytes | None) -> None:
        """Go on after the rows that the archive has.

        Args:
            path: The archive, for messages.
            store: The disk.
            number: Number of the topic partition.
            resume_state: What `snapshot` returned; None when no snapshot was ever taken.

        Raises:
            ArchiveError: The archive lacks rows that the snapshot says it has.
            StateError: The snapshot can't be read.
        """
        self.store = store
        self.staged = self.repeated = 0
        self._number = number
        self._rows: list[pl.DataFrame] = []
        self._through = store.held_through
        if resume_state is not None:
            _, values, _ = unpack(_STATE_KIND, (_STATE_VERSION,), resume_state)
            promised = values["held_through"]
            if promised > store.held_through:
                raise ArchiveError(
                    f"archive {path} lacks rows that were in it: it holds partition {number} up to offset "
                    f"{store.held_through}, the recovery directory says {promised}; put {path} and its staging "
                    f"directory back, or start with an empty recovery directory to read the log again"
                )

    @reported
    def write_batch(self, values: list[pl.DataFrame]) -> None:
        """Take rows in.

        Args:
            values: Rows in log order; empty ones are allowed.

        Raises:
            ArchiveError: The disk takes no more.
        """
        for rows in values:
            fresh = rows
            if len(rows) and rows["partition"][0] != self._number:
                # Bytewax wraps numbers around that are too large.
                raise ArchiveError(
                    f"partition {rows['partition'][0]} was added to the topic while the flow started; nothing of it was"
                    f" archived, and a restart reads it from its beginning"
                )
            if len(rows) and rows["offset"][0] <= self._through:
                fresh = rows.filter(pl.col("offset") > self._through)
                self.repeated += len(rows) - len(fresh)
            if len(fresh):
                self._rows.append(fresh)
                self._through = int(fresh["offset"][-1])
        if sum(map(len, self._rows)) >= STAGE_ROWS:
            self._stage()

    @reported
    def snapshot(self) -> bytes:
        """Make all rows durable.

        Returns:
            How far the archive goes, so that a resumed flow notices when it no longer does.

        Raises:
            ArchiveError: The disk takes no more.
        """
        self._stage()
        return pack(_STATE_KIND, _STATE_VERSION, {"held_through": self.store.held_through}, {})

    @reported
    def close(self) -> None:
        """Show readers everything: the flow ends."""
        self._stage()
        self.store.publish()
        self.store.close()

    def _stage(self) -> None:
        if self._rows:
            rows = pl.concat(self._rows)
            self.store.stage(rows)
            self.staged += len(rows)
            self._rows = []


class Publisher(threading.Thread):
    """Publishes what is due, whether events come or not."""

    def __init__(self, sink: ParquetSink) -> None:
        """Look after the partitions of a sink that live in this process.

        Args:
            sink: The sink.
        """
        super().__init__(name="archive-publisher", daemon=True)
        self._sink = sink

    @reported
    def run(self) -> None:
        """Look now and then, until all partitions are closed."""
        while self._sink.is_open:
            self._sink.publish_due()
            time.sleep(_LOOK_EVERY_S)


def _check_origin(path: Path, record: Path, origin: dict[str, Any]) -> None:
    """Compare what an archive was made of with what would be added to it; a new one is given its record.

    Raises:
        ArchiveError: They differ.
    """
    if record.exists():
        known = json.loads(record.read_text(encoding="utf-8"))
        changed = [name for name in sorted(origin) if known.get(name) != origin[name]]
        if changed:
            before = ", ".join(f"{name} = {json.dumps(known.get(name))}" for name in changed)
            now = ", ".join(json.dumps(origin[name]) for name in changed)
            raise ArchiveError(
                f"archive {path} was made with {before}, now {now}, so events would be in it twice or not at all; "
                f"set archive.path to another directory"
            )
        return
    write_durably(record, json.dumps(origin, indent=1).encode(), draft=record.with_suffix(f".{os.getpid()}"))
    sync_folder(record.parent)

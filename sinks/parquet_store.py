"""One topic partition of the archive on disk: what is staged, what is published, and how one becomes the other.

Offsets say what is there: the archive holds every row of the partition up to an offset, and takes none of them again.
So nothing here depends on snapshots, on how often a flow was killed, or on which recovery directory it was given.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from operators.kernels.archive_rows import filed
from sources.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

NOTHING: Final = -1
"""Offset up to which an archive without rows holds them."""

_STAGED: Final = re.compile(r"(\d+)-(\d+)\.arrow")
_OPEN_TIMEOUT_S: Final = 15.0
_POLL_S: Final = 0.05
_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class ArchiveError(OutputError):
    """The archive can't be written; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A file of rows that readers don't see yet.

    Attributes:
        path: Where it is; its name has the first and the last offset.
        first: Offset of the first row.
        last: Offset of the last row.
        rows: How many rows it has; 0 where that was not counted.
    """

    path: Path
    first: int
    last: int
    rows: int = 0


class PartitionStore:
    """The rows of one topic partition.

    `stage` and `publish` may be called by two threads: what is being published is left alone, what is staged meanwhile
    waits for the next time.

    Attributes:
        held_through: Offset up to which every row is in a file, whether readers see it or not.
        published_rows: Rows that readers see since this store was opened.
        published_files: Files that they are in.
    """

    def __init__(self, path: Path, staging: Path, partition: int, *, shards: int) -> None:
        """Take the partition, tidy up what a crash left, and finish what it was publishing.

        Args:
            path: Directory that readers look into.
            staging: Directory of what they don't see, on the same file system; it exists.
            partition: Number of the topic partition.
            shards: Number of shards, a constant of the archive.

        Raises:
            ArchiveError: Another process writes this partition, or the disk takes no more.
        """
        self.published_rows = self.published_files = 0
        self._path = path
        self._folder = staging / f"partition-{partition:05d}"
        self._partition = partition
        self._shards = shards
        self._since_s: float | None = None
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        with writing(path):
            self._folder.mkdir(exist_ok=True)
            self._descriptor = self._take()
            try:
                self._open()
            except BaseException:
                self.close()
                raise

    @property
    def is_open(self) -> bool:
        """Whether the partition is this process's own."""
        return self._descriptor >= 0

    @property
    def waiting_rows(self) -> int:
        """How many rows readers don't see yet."""
        return sum(file.rows for file in list(self._staged))

    def waiting_s(self) -> float:
        """Tell how long the oldest staged rows have waited, in seconds; 0 without any."""
        since_s = self._since_s
        return 0.0 if since_s is None else max(0.0, time.time() - since_s)

    def stage(self, rows: pl.DataFrame) -> None:
        """Make rows durable, so that they need not be read from Kafka again.

        Args:
            rows: In log order, all of them after `held_through`; at least one.

        Raises:
            ArchiveError: The disk takes no more; nothing of the rows is kept.
        """
        first, last = int(rows["offset"][0]), int(rows["offset"][-1])
        path = self._folder / f"{first:019d}-{last:019d}.arrow"
        data = io.BytesIO()
        rows.write_ipc(data, compression="lz4")
        with writing(self._path):
            write_durably(path, data.getbuffer(), draft=self._folder / f"{path.name}.part")
            sync_folder(self._folder)
        with self._lock:
            self._staged.append(Staged(path, first, last, len(rows)))
            self.held_through = last
            self._since_s = self._since_s or time.time()

    def publish(self) -> None:
        """Put all that is staged where readers see it: a file for each hour and shard, whole or not at all.

        Raises:
            ArchiveError: The disk takes no more; what is staged stays.
        """
        with self._publishing:
            with self._lock:
                staged = list(self._staged)
            if staged:
                with writing(self._path):
                    self._publish(staged)

    def close(self) -> None:
        """Let other processes write the partition."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = NOTHING

    def _open(self) -> None:
        """Tidy up, and finish what was being published."""
        self._ledger = ledger = _Ledger(self._folder / "ledger.json")
        for draft in (*self._folder.glob("*.part"), *self._folder.glob("*.new")):
            draft.unlink()
        self._staged = self._tidied(ledger)
        self.held_through = max([ledger.published_through, *(file.last for file in self._staged)])
        self._since_s = min((file.path.stat().st_mtime for file in self._staged), default=None)
        if ledger.publishing:
            self._publish([file for file in self._staged if file.path.name in ledger.publishing])

    def _publish(self, staged: Sequence[Staged]) -> None:
        """Publish some files; what was published of them before a crash is left as it is."""
        self._ledger.begin([file.path.name for file in staged])
        rows = pl.concat([pl.read_ipc(file.path) for file in staged])
        folders = {self._path}
        for name, part in filed(rows, self._shards):
            folder = self._path / name
            target = folder / f"{self._partition:05d}-{part['offset'][0]:019d}-{part['offset'][-1]:019d}.parquet"
            if target.exists():
                continue
            data = io.BytesIO()
            part.write_parquet(data, compression="zstd")
            folder.mkdir(parents=True, exist_ok=True)
            write_durably(target, data.getbuffer(), draft=self._folder / "parquet.part")
            folders |= {folder, folder.parent}
            self.published_files += 1
        for folder in folders:
            sync_folder(folder)
        self._ledger.finish(staged[-1].last)
        with self._lock:
            self._staged = [file for file in self._staged if file.last > staged[-1].last]
            self._since_s = time.time() if self._staged else None
        self.published_rows += len(rows)
        for file in staged:
            file.path.unlink(missing_ok=True)

    def _tidied(self, ledger: _Ledger) -> list[Staged]:
        """List what is staged in the order of offsets; what has been published is deleted."""
        found = []
        for path in sorted(self._folder.glob("*.arrow")):
            match = _STAGED.fullmatch(path.name)
            if match is None:
                continue
            file = Staged(path, int(match[1]), int(match[2]))
            if file.last <= ledger.published_through:
                path.unlink()
            else:
                rows = pl.scan_ipc(path).select(pl.len()).collect().item()
                found.append(Staged(path, file.first, file.last, rows))
        return found

    def _take(self) -> int:
        """Lock the partition for this process, waiting a little for a predecessor to end.

        Raises:
            ArchiveError: It does not.
        """
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + _OPEN_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_POLL_S)
                    continue
                pid = os.pread(descriptor, 20, 0).decode(errors="replace") or "unknown"
                os.close(descriptor)
                raise ArchiveError(
                    f"archive {self._path}: another process (pid {pid}) writes partition {self._partition}; stop it "
                    f"first, or set archive.path to another directory"
                ) from None
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return descriptor


class _Ledger:
    """What of a partition is published, and what was about to be: a file that is replaced as a whole.

    Attributes:
        published_through: Offset up to which readers see every row.
        publishing: Names of the staged files that are being published, none of which is deleted before that is done.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.published_through: int = facts.get("published_through", NOTHING)
        self.publishing: list[str] = facts.get("publishing", [])

    def begin(self, names: list[str]) -> None:
        """Write down what is about to be published."""
        self._replace(self.published_through, names)

    def finish(self, through: int) -> None:
        """Write down that it is."""
        self._replace(through, [])

    def _replace(self, through: int, publishing: list[str]) -> None:
        text = json.dumps({"published_through": through, "publishing": publishing})
        write_durably(self._path, text.encode(), draft=self._path.with_suffix(".new"))
        sync_folder(self._path.parent)
        self.published_through, self.publishing = through, publishing


def anything_published(staging: Path) -> bool:
    """Tell whether any row was ever published from a staging directory."""
    ledgers = (_Ledger(path) for path in staging.glob("partition-*/ledger.json"))
    return any(ledger.published_through > NOTHING for ledger in ledgers)


def held_through(staging: Path) -> dict[int, int]:
    """Tell how far an archive goes, whoever writes it.

    Args:
        staging: Its staging directory.

    Returns:
        Offset of the last row of each partition that has any.
    """
    held = {}
    for folder in staging.glob("partition-*"):
        staged = (_STAGED.fullmatch(path.name) for path in folder.glob("*.arrow"))
        last = max([_Ledger(folder / "ledger.json").published_through, *(int(match[2]) for match in staged if match)])
        if last > NOTHING:
            held[int(folder.name.rpartition("-")[2])] = last
    return held


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time do something; one that dies lets the next one in.

    Args:
        path: A file for the lock, made when it is missing.
    """
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_durably(path: Path, data: bytes | memoryview, *, draft: Path) -> None:
    """Write a file that is either there as a whole, on the disk itself, or not there.

    Args:
        path: Its place; a file that is there is replaced.
        data: Its contents.
        draft: Where it is written first, on the same file system.

    Raises:
        OSError: The disk takes no more; nothing is left behind.
    """
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk itself."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line that an archive can't be written.

    Args:
        path: The archive.

    Raises:
        ArchiveError: For what the operating system objects to.
    """
    try:
        yield
    except OSError as error:
        room = ""
        if error.errno in _ROOM:
            free = shutil.disk_usage(path if path.exists() else path.parent).free
            room = f" ({free // 1024} KiB are free)"
        raise ArchiveError(
            f"archive {path} can't be written: {error.strerror or error}{room}; nothing is lost, and a restart goes on"
            " where it stopped"
        ) from error

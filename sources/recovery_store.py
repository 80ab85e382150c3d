"""The recovery partitions of Bytewax 0.21.1: SQLite files, created, checked and purged while no flow runs on them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bytewax.recovery import init_db_dir

from sources.errors import FlowError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START_OVER: Final = "or give an empty directory, with which the flow reads all events again"
"""What can always be done about a recovery directory that can't be used: the end of a sentence."""

_HEADER_BYTES: Final = 100
_PAGE_SIZE: Final = slice(16, 18)
_PAGE_COUNT: Final = slice(28, 32)
_LARGEST_PAGE_BYTES: Final = 65_536


class RecoveryError(FlowError):
    """A recovery directory that the flow must not start on; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What the partitions say of earlier executions.

    Attributes:
        resume_epoch: The epoch that Bytewax will resume at: snapshots of earlier ones count.
        executions: How many there were; 0 means that there is no state.
    """

    resume_epoch: int
    executions: int


def partition_files(directory: Path) -> list[Path]:
    """List the recovery partitions in a directory, sorted."""
    return sorted(directory.glob("*.sqlite3"))


def create(directory: Path, partitions: int, marker: Path) -> None:
    """Make empty recovery partitions, all of them or none.

    Args:
        directory: An existing directory.
        partitions: How many.
        marker: A file that exists exactly while this is under way, so that half a set is recognised and made again.
    """
    marker.touch()
    for path in partition_files(directory):
        path.unlink()
    init_db_dir(directory, partitions)  # type: ignore[no-untyped-call]
    marker.unlink()


def examine(directory: Path) -> StoreFacts:
    """Check that the recovery partitions are all there, whole, and of one age.

    Args:
        directory: Has at least one recovery partition. Nothing runs on it.

    Returns:
        Where Bytewax will resume, by its own rule: the smallest frontier that the workers of the latest execution
        reached, or the epoch at which that execution resumed where it got no further.

    Raises:
        RecoveryError: A partition is missing, damaged, or from an older backup than the others.
    """
    paths = partition_files(directory)
    members: list[tuple[int, int]] = []
    executions: set[tuple[int, int, int]] = set()
    frontiers: list[tuple[int, int, int]] = []
    commits: list[tuple[str, int]] = []
    for path in paths:
        _check_length(path)
        try:
            with closing(sqlite3.connect(path)) as db:
                members += db.execute("SELECT part_index, part_count FROM parts")
                executions.update(db.execute("SELECT ex_num, worker_count, resume_epoch FROM exs"))
                frontiers += db.execute("SELECT ex_num, worker_index, worker_frontier FROM fronts")
                commits += ((path.name, epoch) for (epoch,) in db.execute("SELECT commit_epoch FROM commits"))
        except sqlite3.DatabaseError as error:
            raise _damaged(path, error) from error
    _check_complete(directory, len(paths), members)
    if not executions:
        return StoreFacts(1, 0)
    number, workers, began = max(executions)
    reached = dict.fromkeys(range(workers), began)
    for execution, worker, frontier in frontiers:
        if execution == number:
            reached[worker] = max(reached.get(worker, 0), frontier)
    epoch = min(reached.values())
    newer = sorted(name for name, committed in commits if committed > epoch)
    if newer:
        raise RecoveryError(
            f"recovery directory {directory} can't be resumed at epoch {epoch}: {newer[0]} is from a newer state, "
            f"whose older snapshots are gone; restore all partitions from one backup, {START_OVER}"
        )
    return StoreFacts(epoch, len(executions))


def purge(directory: Path, epoch: int) -> int:
    """Delete snapshots of epochs that never became durable.

    Left alone they would be loaded once a later execution has passed their epoch, beside a source that had gone back.

    Args:
        directory: Was examined. Nothing runs on it.
        epoch: The resume epoch; snapshots of it and of later ones are deleted.

    Returns:
        How many rows were deleted.

    Raises:
        RecoveryError: A partition is damaged or can't be written.
    """
    rows = 0
    for path in partition_files(directory):
        try:
            with closing(sqlite3.connect(path)) as db, db:
                rows += db.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (epoch,)).rowcount
        except sqlite3.DatabaseError as error:
            raise _damaged(path, error) from error
    return rows


def _check_length(path: Path) -> None:
    """Compare a file with the number of pages in its header: SQLite only notices a cut when it gets there.

    A crash, or a full disk, in the middle of a checkpoint leaves a short file as well. Nothing is lost then: the pages
    are still in the write-ahead log beside it, and SQLite is asked whether all of them are.

    Raises:
        RecoveryError: The file is shorter.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    page_bytes = int.from_bytes(header[_PAGE_SIZE], "big")
    page_bytes = _LARGEST_PAGE_BYTES if page_bytes == 1 else page_bytes
    expected = page_bytes * int.from_bytes(header[_PAGE_COUNT], "big")
    length = path.stat().st_size
    whole = len(header) == _HEADER_BYTES and (length >= expected or _has_all_pages(path))
    if not whole:
        raise _damaged(path, f"it has {length} of {max(expected, _HEADER_BYTES)} bytes")


def _has_all_pages(path: Path) -> bool:
    """Tell whether a recovery partition is whole together with its write-ahead log.

    Raises:
        RecoveryError: SQLite can't use it at all.
    """
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or not log.stat().st_size:
        return False
    try:
        with closing(sqlite3.connect(path)) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)])
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error


def _check_complete(directory: Path, files: int, members: Sequence[tuple[int, int]]) -> None:
    """Check that every partition of the set is there once.

    Raises:
        RecoveryError: It is not.
    """
    counts = {count for _, count in members}
    indices = sorted(index for index, _ in members)
    if len(counts) == 1 and indices == list(range(min(counts))) and files == len(indices):
        return
    if len(counts) == 1 and len(set(indices)) == len(indices) == files:
        missing = sorted(set(range(min(counts))) - set(indices))
        raise RecoveryError(
            f"recovery directory {directory} holds {files} of its {min(counts)} partitions, part-{missing[0]}.sqlite3 "
            f"is missing; put it back, {START_OVER}"
        )
    raise RecoveryError(
        f"recovery directory {directory} holds partitions that don't belong together; restore all of them from one "
        f"backup, {START_OVER}"
    )


def _damaged(path: Path, why: object) -> RecoveryError:
    if isinstance(why, sqlite3.OperationalError):
        return RecoveryError(f"recovery partition {path} can't be used: {why}")
    return RecoveryError(
        f"recovery partition {path} is damaged ({why}); restore all partitions from one backup, {START_OVER}"
    )

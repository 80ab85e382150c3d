"""Who may run on a recovery directory: the processes of one cluster, started together, after one of them prepared it.

Each process holds a lock on a file of its own for as long as it lives, which the kernel drops however it dies. The
first of a cluster finds no such lock and prepares; the others join while all that joined before them live. A process
that finds leftovers of another start waits for them to end: they could still write.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sources.recovery_store import RecoveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_PREPARE_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Member:
    """One process of a cluster.

    Attributes:
        process: Its number, from 0.
        addresses: Addresses of all processes, in order; what identifies the cluster. Empty for a process alone.
    """

    process: int = 0
    addresses: Sequence[str] = ()


@dataclass(slots=True)
class Membership:
    """The right to run on a recovery directory, until the process ends or gives it back.

    Attributes:
        prepared: What the process that prepared the directory reported.
    """

    prepared: dict[str, Any]
    _descriptor: int = -1

    def release(self) -> None:
        """Give the right back, for programs that go on without the flow."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def join_cluster(
    directory: Path, folder: Path, member: Member, prepare: Callable[[], dict[str, Any]], *, wait_s: float
) -> Membership:
    """Take the right to run on a recovery directory, and prepare it when nobody of this cluster has yet.

    Args:
        directory: The recovery directory, for messages.
        folder: An existing folder on the same machine for the lock files.
        member: This process.
        prepare: Makes the directory ready while nothing runs on it; reports plain data for JSON.
        wait_s: How long to wait for processes of an earlier start to end.

    Returns:
        The right, with the report of whoever prepared.

    Raises:
        RecoveryError: Another cluster, or what is left of an earlier start, still runs on the directory.
    """
    deadline = time.monotonic() + wait_s
    record = folder / "cluster.json"
    while True:
        with _mutex(directory, folder / "prepare.lock"):
            alive = _alive(folder)
            if not alive:
                # Written before preparing, too: a process that dies while it prepares leaves nothing to join.
                record.unlink(missing_ok=True)
                report = prepare()
                return _enter(folder, record, member, [], report)
            known = json.loads(record.read_text(encoding="utf-8"))
            obstacle = _obstacle(directory, member, known, alive)
            if obstacle is None:
                return _enter(folder, record, member, known["joined"], known["prepared"])
        if time.monotonic() >= deadline:
            raise RecoveryError(obstacle)
        time.sleep(_POLL_S)


def _obstacle(directory: Path, member: Member, known: dict[str, Any], alive: dict[int, str]) -> str | None:
    """Say why a process can't join those that are alive; None when it can."""
    running = ", ".join(f"process {number} (pid {pid})" for number, pid in sorted(alive.items()))
    if known["addresses"] != list(member.addresses):
        return (
            f"recovery directory {directory} is in use by another cluster: {running}; stop it first, or give this "
            f"one a directory of its own"
        )
    if member.process in known["joined"] or not set(known["joined"]) <= set(alive):
        return (
            f"recovery directory {directory} is still in use by an earlier start of this cluster: {running}; all "
            f"processes must be stopped before any is started again"
        )
    return None


def _enter(folder: Path, record: Path, member: Member, joined: list[int], prepared: dict[str, Any]) -> Membership:
    """Take this process's own lock and tell the others of it."""
    descriptor = os.open(_lock_path(folder, member.process), os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    facts = {"addresses": list(member.addresses), "joined": [*joined, member.process], "prepared": prepared}
    write_whole(record, facts)
    return Membership(prepared, descriptor)


def _alive(folder: Path) -> dict[int, str]:
    """Find the processes that hold their lock: number and what their file says of the pid."""
    found = {}
    for path in folder.glob("process-*.lock"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found[int(path.stem.rpartition("-")[2])] = file.read().decode(errors="replace") or "unknown"
    return found


@contextmanager
def _mutex(directory: Path, path: Path) -> Iterator[None]:
    """Let one process at a time look and prepare.

    Raises:
        RecoveryError: Another one did not finish, or the file system has no locks.
    """
    deadline = time.monotonic() + _PREPARE_TIMEOUT_S
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise RecoveryError(
                        f"recovery directory {directory} is being prepared by another process for more than "
                        f"{_PREPARE_TIMEOUT_S:g} s; stop that one first"
                    ) from None
                time.sleep(_POLL_S)
            except OSError as error:
                raise RecoveryError(
                    f"recovery directory {directory} can't be locked ({error.strerror}), so a second cluster could "
                    f"run on it; use a local file system"
                ) from error
        yield


def _lock_path(folder: Path, process: int) -> Path:
    return folder / f"process-{process}.lock"


def write_whole(path: Path, facts: dict[str, Any]) -> None:
    """Write JSON so that a reader, after whatever crash, finds the old file or the new one.

    Args:
        path: The file.
        facts: Plain data.
    """
    draft = path.with_suffix(".new")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(facts, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)

"""One supervisor for each recovery directory: two would take turns in killing each other's cluster."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK: Final = Path(".tailmark") / "supervisor.lock"


class ClaimError(RuntimeError):
    """The recovery directory can't be ours; one line that says why."""


@contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Hold a recovery directory against other supervisors; the kernel lets go of it however this process ends.

    Args:
        directory: Made when it is missing.

    Raises:
        ClaimError: Another supervisor has it, or it can't be written.
    """
    path = directory / _LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ClaimError(f"recovery directory {directory} can't be used: {error.strerror}") from error
    try:
        _lock(directory, descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(directory: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace") or "unknown"
        raise ClaimError(
            f"recovery directory {directory} belongs to another supervisor (pid {holder}); stop that one first, or "
            f"give this one --recovery-dir"
        ) from None
    except OSError as error:
        raise ClaimError(
            f"recovery directory {directory} can't be locked ({error.strerror}), so a second cluster could run on it; "
            f"use a local file system"
        ) from error
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)

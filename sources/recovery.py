"""Recovery that is safe however the flow is started: by one cluster, whole, and without rows that never counted.

Bytewax 0.21.1 keeps snapshots of an epoch that a crash cut off, and loads them after the next crash although the
source went back: items are then counted twice. Nothing keeps two clusters from one recovery directory either. So
before Bytewax reads the directory, and while nothing runs on it, it is locked, checked, and purged of such rows.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bytewax import run as bytewax_run

from sources.recovery_lock import Member, Membership, join_cluster, write_whole
from sources.recovery_store import START_OVER, RecoveryError, create, examine, partition_files, purge

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PARTITIONS: Final = 4

_FOLDER: Final = ".tailmark"
_WAIT_S: Final = 10.0
_SQLITE_FAILURE: Final = re.compile(r'SqliteFailure\(Error \{.*?\}, Some\("(.*?)"\)\)')
_ALONE: Final = Member()
_FIRST_EPOCH: Final = 1


@dataclass(frozen=True, slots=True)
class RunFlags:
    """What `python -m bytewax.run` was told, by its flags or its environment.

    Attributes:
        directory: Recovery directory; None for a run without recovery.
        member: Which process of which cluster this is.
        workers: Workers in each process.
        snapshot_interval_s: Length of an epoch, in seconds; None for Bytewax's default.
    """

    directory: Path | None
    member: Member
    workers: int
    snapshot_interval_s: float | None


@dataclass(slots=True)
class Recovery:
    """A recovery directory that is ready, and ours until the process ends.

    Attributes:
        directory: Where it is.
        resume_epoch: Epoch at which Bytewax will resume; 1 when there is no state.
        purged_rows: Snapshots of unfinished epochs that were deleted, by whichever process of the cluster did it.
        created: Whether the directory was new.
        constants: Numbers that stay what they were when the state began, whatever was asked for since.
    """

    directory: Path
    resume_epoch: int
    purged_rows: int
    created: bool
    constants: dict[str, int]
    _membership: Membership = field(repr=False)

    def release(self) -> None:
        """Let others run on the directory, for programs that go on without the flow."""
        self._membership.release()


def bytewax_flags() -> RunFlags | None:
    """Find out how this process was started, the way Bytewax itself does.

    Returns:
        The flags; None when the program is not `python -m bytewax.run`.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or spec.name != "bytewax.run":
        return None
    # Bytewax's own parser, private but pinned: its flags, variables and host files stay one truth.
    told = bytewax_run._parse_args()  # type: ignore[no-untyped-call]  # noqa: SLF001
    interval = told.snapshot_interval
    return RunFlags(
        directory=None if told.recovery_directory is None else Path(told.recovery_directory),
        member=Member(int(told.process_id or 0), tuple((told.addresses or "").split(";")) if told.addresses else ()),
        workers=int(told.workers_per_process or 1),
        snapshot_interval_s=None if interval is None else interval.total_seconds(),
    )


def recovery_of_run(*, settings: Mapping[str, Any], constants: Mapping[str, int]) -> Recovery | None:
    """Make the recovery directory of `python -m bytewax.run` ready; to be called before the dataflow is built.

    Args:
        settings: See `prepare_recovery`.
        constants: Likewise.

    Returns:
        The directory; None when the flow was started without one, or in another way.

    Raises:
        RecoveryError: The flow must not start on it.
    """
    flags = bytewax_flags()
    if flags is None or flags.directory is None:
        return None
    return prepare_recovery(flags.directory, member=flags.member, settings=settings, constants=constants)


def recovery_failure(error: BaseException) -> RecoveryError | None:
    """Recognise that Bytewax could no longer write its recovery partitions, of which only its SQLite library speaks.

    Args:
        error: What Bytewax raised.

    Returns:
        The same as one line; None when it is about something else.
    """
    said = _SQLITE_FAILURE.search(str(error))
    flags = bytewax_flags()
    if said is None or flags is None:
        return None
    return RecoveryError(
        f"recovery directory {flags.directory} can't be written: {said[1]}; the flow stops, and resumes from its last "
        f"snapshot"
    )


def prepare_recovery(
    directory: Path,
    *,
    member: Member = _ALONE,
    settings: Mapping[str, Any],
    constants: Mapping[str, int],
    partitions: int = DEFAULT_PARTITIONS,
    wait_s: float = _WAIT_S,
) -> Recovery:
    """Lock, create, check and purge a recovery directory before a flow starts on it.

    Every process of a cluster calls it; the first one does the work. All of them must share the directory.

    Args:
        directory: Created when it is missing, and filled when it has no recovery partitions.
        member: Which process of which cluster this is.
        settings: Values, fit for JSON, that give the state its meaning: with others it would be wrong.
        constants: Numbers that must not change while there is state, but that outsiders may change, like the
            partitions of an output topic.
        partitions: How many recovery partitions a new directory gets.
        wait_s: How long to wait for processes of an earlier start to end.

    Returns:
        The directory, with the constants to use.

    Raises:
        RecoveryError: The flow must not start on it; the message says what to do.
    """
    folder = directory / _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        membership = join_cluster(
            directory, folder, member, lambda: _prepare(directory, settings, constants, partitions), wait_s=wait_s
        )
        try:
            _Record(directory).check(settings)
        except RecoveryError:
            membership.release()
            raise
    except (OSError, json.JSONDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{_FOLDER} is damaged"
        raise RecoveryError(f"recovery directory {directory} can't be used: {why}") from error
    return Recovery(directory, **membership.prepared, _membership=membership)


def _prepare(
    directory: Path, settings: Mapping[str, Any], constants: Mapping[str, int], partitions: int
) -> dict[str, Any]:
    """Do what needs to be done while nothing runs on the directory; the report has the fields of `Recovery`."""
    record = _Record(directory)
    marker = directory / _FOLDER / "creating"
    created = marker.exists() or not partition_files(directory)
    if created:
        record.check_empty()
        create(directory, partitions, marker)
    facts = examine(directory)
    if facts.resume_epoch > _FIRST_EPOCH:
        record.check(settings)
    purged = purge(directory, facts.resume_epoch)
    kept = {**constants, **(record.constants() if facts.executions else {})}
    record.write(settings, kept, len(partition_files(directory)))
    return {"resume_epoch": facts.resume_epoch, "purged_rows": purged, "created": created, "constants": kept}


class _Record:
    """What is written beside the state about the settings it was made with."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / _FOLDER / "settings.json"
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else "{}"
        self._facts: dict[str, Any] = json.loads(text)

    def constants(self) -> dict[str, int]:
        """Return the constants that the state began with."""
        return dict(self._facts.get("constants", {}))

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compare the settings with those that the state was made with.

        Raises:
            RecoveryError: Some differ.
        """
        before, now = self._facts.get("settings", {}), json.loads(json.dumps(dict(settings)))
        changed = [name for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]
        if changed:
            differences = ", ".join(f"{name} = {json.dumps(before[name])}" for name in changed)
            values = ", ".join(json.dumps(now[name]) for name in changed)
            raise RecoveryError(
                f"recovery directory {self._directory} holds state made with {differences}, now {values}, so it would "
                f"be wrong; set it back, {START_OVER}"
            )

    def check_empty(self) -> None:
        """Check that a directory without recovery partitions never had any.

        Raises:
            RecoveryError: They are gone.
        """
        count = self._facts.get("partitions", 0)
        if count:
            raise RecoveryError(
                f"recovery directory {self._directory} holds none of its {count} partitions; put them back, "
                f"{START_OVER}"
            )

    def write(self, settings: Mapping[str, Any], constants: Mapping[str, int], partitions: int) -> None:
        """Replace what was written."""
        write_whole(self._path, {"settings": dict(settings), "constants": dict(constants), "partitions": partitions})

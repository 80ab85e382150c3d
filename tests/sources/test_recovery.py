"""Recovery: bug of Bytewax and its cure, one cluster at a time, whole partitions, settings that fit the state."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bytewax.recovery import init_db_dir

from local.ports import free_port
from sources.recovery import Recovery, bytewax_flags, prepare_recovery
from sources.recovery_lock import Member
from sources.recovery_store import RecoveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
START_TIMEOUT_S = 60


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def count_letters(directory: Path, prepare: str, *executions: tuple[list[int], int]) -> list[str]:
    """Run the counting flow several times on a directory; each may be killed. Returns the lines of the last one."""
    lines: list[str] = []
    for lengths, kill_in in executions:
        command = [sys.executable, HERE / "counting_flow.py", directory, prepare, json.dumps(lengths), str(kill_in)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == (-signal.SIGKILL if kill_in else 0), done.stderr
        lines = done.stdout.splitlines()
    return lines


TWO_CRASHES = (
    ([1, 2], 2),  # epoch 2 counts A and R, and is cut off after the snapshot of R was written
    ([1, 1], 2),  # epoch 2 counts A only, and becomes durable; epoch 3 is cut off
    ([1, 1, 1], 0),  # resumes before R
)


def test_bytewax_counts_an_item_twice_after_two_crashes(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    assert "R 2" in count_letters(tmp_path, "leave", *TWO_CRASHES), "the bug is gone: drop the purge"


def test_the_same_two_crashes_count_every_item_once_when_recovery_is_prepared(tmp_path: Path) -> None:
    assert count_letters(tmp_path / "new", "prepare", *TWO_CRASHES) == ["R 1", "A 3", "A 4"]


@pytest.fixture
def prepared() -> Iterator[Callable[..., Recovery]]:
    """A function that prepares a directory, as if by a process of its own that ends with the test or when released."""
    held: list[Recovery] = []

    def prepare(directory: Path, **options: Any) -> Recovery:
        given = {"settings": {}, "constants": {}, "wait_s": 0.0, **options}
        held.append(prepare_recovery(directory, **given))
        return held[-1]

    yield prepare
    for recovery in held:
        recovery.release()


HOLD = """
import pathlib, sys
from sources.recovery import prepare_recovery
held = prepare_recovery(pathlib.Path(sys.argv[1]), settings={}, constants={})
print("held", flush=True)
sys.stdin.read()
"""


def write_state(directory: Path, *, epoch: int = 7, workers: int = 1, stale: int = 0, part: int = 0) -> None:
    """Write what an execution leaves: its resume epoch, its workers' frontiers, and snapshots of unfinished epochs."""
    with sqlite3.connect(directory / f"part-{part}.sqlite3") as db:
        db.execute("INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (1, ?, 1)", (workers,))
        for worker in range(workers):
            row = (worker, epoch + worker)
            db.execute("INSERT INTO fronts (ex_num, worker_index, worker_frontier) VALUES (1, ?, ?)", row)
        for number in range(epoch - 2, epoch + stale):
            db.execute("INSERT INTO snaps (step_id, state_key, snap_epoch) VALUES ('s', 'k', ?)", (number,))
    db.close()


def snapshot_epochs(directory: Path) -> list[int]:
    found: list[int] = []
    for path in directory.glob("*.sqlite3"):
        with sqlite3.connect(path) as db:
            found += [epoch for (epoch,) in db.execute("SELECT snap_epoch FROM snaps")]
        db.close()
    return sorted(found)


def test_a_missing_directory_is_created_with_its_partitions(tmp_path: Path, prepared: Callable[..., Recovery]) -> None:
    recovery = prepared(tmp_path / "a" / "b", partitions=3)
    assert recovery.created
    assert (recovery.resume_epoch, recovery.purged_rows) == (1, 0)
    assert sorted(path.name for path in (tmp_path / "a" / "b").glob("*.sqlite3")) == [
        f"part-{number}.sqlite3" for number in range(3)
    ]


def test_a_directory_with_other_things_in_it_is_filled(tmp_path: Path, prepared: Callable[..., Recovery]) -> None:
    (tmp_path / "lost+found").mkdir()
    assert prepared(tmp_path).created


def test_a_creation_that_was_cut_off_is_done_again(tmp_path: Path, prepared: Callable[..., Recovery]) -> None:
    init_db_dir(tmp_path, 4)
    (tmp_path / "part-2.sqlite3").unlink()
    (tmp_path / ".tailmark").mkdir()
    (tmp_path / ".tailmark" / "creating").touch()
    assert prepared(tmp_path, partitions=2).created
    assert len(list(tmp_path.glob("*.sqlite3"))) == 2


def test_partitions_made_by_bytewax_itself_are_taken_as_they_are(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    init_db_dir(tmp_path, 2)
    write_state(tmp_path, epoch=5)
    recovery = prepared(tmp_path)
    assert (recovery.created, recovery.resume_epoch) == (False, 5)


def test_rows_at_or_past_the_resume_epoch_are_purged_from_every_partition(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    prepared(tmp_path, partitions=2).release()
    write_state(tmp_path, epoch=7, workers=2, stale=3)
    with sqlite3.connect(tmp_path / "part-1.sqlite3") as db:
        db.execute("INSERT INTO snaps (step_id, state_key, snap_epoch) VALUES ('s', 'other', 8)")
    db.close()
    recovery = prepared(tmp_path)
    assert recovery.resume_epoch == 7, "the slowest worker decides"
    assert recovery.purged_rows == 4
    assert snapshot_epochs(tmp_path) == [5, 6]


def test_an_execution_that_got_nowhere_resumes_where_it_began(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    prepared(tmp_path, partitions=2).release()
    write_state(tmp_path, epoch=7, stale=1)
    with sqlite3.connect(tmp_path / "part-1.sqlite3") as db:
        db.execute("INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (2, 3, 7)")
        db.execute("INSERT INTO fronts (ex_num, worker_index, worker_frontier) VALUES (2, 1, 9)")
    db.close()
    assert prepared(tmp_path).resume_epoch == 7, "two of its three workers never finished an epoch"


def test_a_missing_partition_is_named(tmp_path: Path, prepared: Callable[..., Recovery]) -> None:
    prepared(tmp_path, partitions=3).release()
    (tmp_path / "part-1.sqlite3").unlink()
    with pytest.raises(RecoveryError, match=r"holds 2 of its 3 partitions, part-1.sqlite3 is missing; put it back, or"):
        prepared(tmp_path)


def test_a_directory_that_lost_all_partitions_is_not_taken_for_a_new_one(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    prepared(tmp_path, partitions=2).release()
    for path in tmp_path.glob("*.sqlite3"):
        path.unlink()
    with pytest.raises(RecoveryError, match="holds none of its 2 partitions; put them back, or"):
        prepared(tmp_path)


def test_partitions_of_two_sets_are_refused(tmp_path: Path, prepared: Callable[..., Recovery]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    init_db_dir(tmp_path / "a", 2)
    init_db_dir(tmp_path / "b", 3)
    shutil.copy(tmp_path / "b" / "part-2.sqlite3", tmp_path / "a")
    with pytest.raises(RecoveryError, match="don't belong together"):
        prepared(tmp_path / "a")


@pytest.mark.parametrize("damage", ["cut in half", "cut to 10 bytes", "emptied", "overwritten"])
def test_a_damaged_partition_is_named(tmp_path: Path, prepared: Callable[..., Recovery], damage: str) -> None:
    prepared(tmp_path, partitions=2).release()
    victim = tmp_path / "part-1.sqlite3"
    if damage == "overwritten":
        victim.write_bytes(b"not a database at all, " * 2000)
    else:
        os.truncate(victim, {"cut in half": victim.stat().st_size // 2, "cut to 10 bytes": 10, "emptied": 0}[damage])
    with pytest.raises(RecoveryError, match=r"recovery partition .*part-1.sqlite3 is damaged .*restore all partitions"):
        prepared(tmp_path)


@pytest.mark.parametrize("log", ["kept", "cut"])
def test_a_checkpoint_that_was_cut_off_is_no_damage_while_the_log_has_the_pages(
    tmp_path: Path, prepared: Callable[..., Recovery], log: str
) -> None:
    prepared(tmp_path, partitions=1).release()
    part = tmp_path / "part-0.sqlite3"
    write_state(tmp_path, epoch=7)
    before_bytes = part.stat().st_size
    db = sqlite3.connect(part, isolation_level=None)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    rows = [("s", f"k{number}", 6, bytes(1000)) for number in range(200)]
    db.execute("BEGIN")
    db.executemany("INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES (?, ?, ?, ?)", rows)
    db.execute("COMMIT")
    pages = tmp_path.joinpath("part-0.sqlite3-wal").read_bytes()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    os.truncate(part, before_bytes)
    tmp_path.joinpath("part-0.sqlite3-wal").write_bytes(pages if log == "kept" else pages[: len(pages) // 2])
    if log == "cut":
        with pytest.raises(RecoveryError, match=r"part-0.sqlite3 is damaged"):
            prepared(tmp_path)
    else:
        prepared(tmp_path)
        assert len(snapshot_epochs(tmp_path)) == 2 + len(rows)


def test_one_partition_from_an_older_backup_is_refused_when_the_others_moved_on(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    prepared(tmp_path, partitions=2).release()
    write_state(tmp_path, epoch=7)
    with sqlite3.connect(tmp_path / "part-1.sqlite3") as db:
        db.execute("INSERT INTO commits (part_index, commit_epoch) VALUES (1, 8)")
    db.close()
    with pytest.raises(RecoveryError, match=r"can't be resumed at epoch 7: part-1.sqlite3 is from a newer state"):
        prepared(tmp_path)


def test_settings_that_would_make_the_state_wrong_are_refused_with_both_values(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    made_with = {"window.length_ms": 60_000, "window.slide_ms": 10_000, "kafka.topics.events": "events"}
    prepared(tmp_path, settings=made_with).release()
    write_state(tmp_path)
    prepared(tmp_path, settings=made_with).release()
    now = {**made_with, "window.length_ms": 30_000, "kafka.topics.events": "other"}
    with pytest.raises(RecoveryError) as caught:
        prepared(tmp_path, settings=now)
    text = str(caught.value)
    assert 'kafka.topics.events = "events", window.length_ms = 60000, now "other", 30000' in text
    assert "set it back, or give an empty directory" in text
    assert "\n" not in text
    prepared(tmp_path, settings=made_with)


def test_settings_may_change_while_there_is_no_state(tmp_path: Path, prepared: Callable[..., Recovery]) -> None:
    prepared(tmp_path, settings={"slide": 1}).release()
    prepared(tmp_path, settings={"slide": 2}).release()
    write_state(tmp_path)
    with pytest.raises(RecoveryError, match="slide = 2, now 1"):
        prepared(tmp_path, settings={"slide": 1})


def test_a_setting_that_is_new_in_this_release_is_not_held_against_older_state(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    prepared(tmp_path, settings={"slide": 1}).release()
    write_state(tmp_path)
    prepared(tmp_path, settings={"slide": 1, "shards": 64}).release()
    with pytest.raises(RecoveryError, match="shards = 64, now 32"):
        prepared(tmp_path, settings={"slide": 1, "shards": 32})


def test_constants_stay_what_they_were_when_the_state_began(tmp_path: Path, prepared: Callable[..., Recovery]) -> None:
    first = prepared(tmp_path, constants={"windows": 4})
    assert first.constants == {"windows": 4}
    first.release()
    write_state(tmp_path)
    assert prepared(tmp_path, constants={"windows": 8, "alerts": 2}).constants == {"windows": 4, "alerts": 2}


def test_a_second_run_on_the_same_directory_is_refused_with_the_pid_of_the_first(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    first = prepared(tmp_path)
    with pytest.raises(RecoveryError, match=rf"still in use by an earlier start .*process 0 \(pid {os.getpid()}\)"):
        prepared(tmp_path)
    first.release()
    prepared(tmp_path)


def test_another_cluster_is_refused(tmp_path: Path, prepared: Callable[..., Recovery]) -> None:
    prepared(tmp_path, member=Member(0, ("a:1", "b:1")))
    with pytest.raises(RecoveryError, match="in use by another cluster: process 0"):
        prepared(tmp_path, member=Member(1, ("c:1", "d:1")))
    with pytest.raises(RecoveryError, match="in use by another cluster"):
        prepared(tmp_path)


def test_processes_of_a_cluster_join_in_any_order_and_only_the_first_prepares(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    addresses = ("a:1", "b:1", "c:1")
    prepared(tmp_path).release()
    write_state(tmp_path, epoch=7, stale=1)
    recoveries = [prepared(tmp_path, member=Member(number, addresses)) for number in (2, 0, 1)]
    assert [(r.resume_epoch, r.purged_rows) for r in recoveries] == [(7, 1)] * 3


def test_a_process_does_not_join_what_is_left_of_a_cluster_that_lost_another(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    addresses = ("a:1", "b:1", "c:1")
    survivor = prepared(tmp_path, member=Member(1, addresses))
    prepared(tmp_path, member=Member(0, addresses)).release()
    for number in (0, 2):
        with pytest.raises(RecoveryError, match=r"earlier start of this cluster: process 1 .*all processes must be"):
            prepared(tmp_path, member=Member(number, addresses))
    survivor.release()
    write_state(tmp_path, epoch=7, stale=1)
    assert prepared(tmp_path, member=Member(2, addresses)).purged_rows == 1, "a fresh start prepares again"


def test_a_start_waits_for_the_processes_of_the_last_one_to_end(
    tmp_path: Path, prepared: Callable[..., Recovery]
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen(command, env=environment(), text=True, **pipes)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RecoveryError, match=f"pid {holder.pid}"):
        prepared(tmp_path)
    holder.kill()
    assert prepared(tmp_path, wait_s=START_TIMEOUT_S).resume_epoch == 1
    holder.wait()


def test_a_joining_process_with_other_settings_is_refused(tmp_path: Path, prepared: Callable[..., Recovery]) -> None:
    prepared(tmp_path, member=Member(0, ("a:1", "b:1")), settings={"slide": 1})
    with pytest.raises(RecoveryError, match="slide = 1, now 2"):
        prepared(tmp_path, member=Member(1, ("a:1", "b:1")), settings={"slide": 2})


def test_a_path_that_is_no_directory_is_one_line(tmp_path: Path, prepared: Callable[..., Recovery]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecoveryError, match="file can't be used: Not a directory"):
        prepared(tmp_path / "file")


def test_a_program_that_is_not_bytewax_run_has_no_flags() -> None:
    assert bytewax_flags() is None


class Runs:
    """Processes of `python -m bytewax.run` on one recovery directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stop_file = directory.with_name("stop")
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *flags: str, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bytewax.run", str(HERE / "idle_flow.py"), *flags]
        if "BYTEWAX_RECOVERY_DIRECTORY" not in env:
            command += ["-r", str(self.directory), "-s", "1", "-b", "0"]
        # Bytewax imports from where the flow lies, which is this folder.
        full = environment(IDLE_STOP=str(self.stop_file), **env)
        process = subprocess.Popen(command, env=full, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.running.append(process)
        return process

    def line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def facts(self, process: subprocess.Popen[str]) -> Any:
        return json.loads(self.line(process))["facts"]

    def wait_for_epochs(self, past: int = 1) -> None:
        """Wait until the directory shows a durable epoch."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            frontiers = []
            for path in self.directory.glob("*.sqlite3"):
                db = sqlite3.connect(path)
                frontiers += [epoch for (epoch,) in db.execute("SELECT worker_frontier FROM fronts")]
                db.close()
            if frontiers and max(frontiers) > past:
                return
            time.sleep(0.05)
        pytest.fail("no epoch became durable")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path / "recovery")
    yield made
    for process in made.running:
        process.kill()
        process.wait()


def test_plain_bytewax_run_creates_locks_and_resumes(runs: Runs) -> None:
    first = runs.start()
    assert runs.facts(first) == [True, 0, 1]
    runs.wait_for_epochs()
    second = runs.start()
    assert runs.line(second).startswith("refused: recovery directory")
    assert second.wait(START_TIMEOUT_S) == 1
    first.kill()
    first.wait()
    created, _, epoch = runs.facts(runs.start())
    assert not created
    assert epoch > 1


def test_a_drained_run_leaves_nothing_to_purge(runs: Runs) -> None:
    first = runs.start()
    runs.facts(first)
    runs.wait_for_epochs()
    runs.stop_file.touch()
    assert first.wait(START_TIMEOUT_S) == 0
    created, purged, epoch = runs.facts(runs.start())
    assert (created, purged) == (False, 0)
    assert epoch > 1


def test_the_directory_is_found_in_the_environment_too(runs: Runs) -> None:
    process = runs.start(
        "-w", "2",
        BYTEWAX_RECOVERY_DIRECTORY=str(runs.directory),
        BYTEWAX_SNAPSHOT_INTERVAL="1",
        BYTEWAX_RECOVERY_BACKUP_INTERVAL="0",
    )  # fmt: skip
    assert json.loads(runs.line(process)) == {"process": 0, "workers": 2, "facts": [True, 0, 1]}


def test_a_cluster_of_two_processes_shares_one_preparation_and_restarts_with_another_size(runs: Runs) -> None:
    addresses = f"localhost:{free_port()};localhost:{free_port()}"
    pair = [runs.start("-i", str(number), "-a", addresses) for number in (1, 0)]
    facts = [json.loads(runs.line(process)) for process in pair]
    assert [fact["process"] for fact in facts] == [1, 0]
    assert [fact["facts"] for fact in facts] == [[True, 0, 1]] * 2
    runs.wait_for_epochs()
    for process in pair:
        process.kill()
        process.wait()
    created, _, epoch = runs.facts(runs.start())
    assert not created
    assert epoch > 1

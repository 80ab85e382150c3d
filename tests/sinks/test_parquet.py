"""The Parquet sink on a disk, cut off at every single operation: what readers see is each row once, or not yet."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from operators.kernels.archive_rows import HOUR_MS, SCHEMA
from operators.kernels.codec import StateError, pack
from sinks.parquet import STAGE_ROWS, ArchivePartition, ParquetSink
from sinks.parquet_page import ArchiveCollector
from sinks.parquet_store import ArchiveError
from tests.archive_log import files, scan
from tests.contracts.storage import of_next_release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
START_MS = 1_763_899_200_000
ORIGIN = {"kafka.topics.events": "telemetry.events", "topic id": "1"}
BATCH = 10
BATCHES = 6


class Cut(BaseException):
    """The process is gone."""


def rows(first: int, count: int = BATCH, *, partition: int = 0) -> pl.DataFrame:
    """Make rows of consecutive offsets, some of which share a record, spread over hours and services."""
    numbers = range(first, first + count)
    columns: dict[str, Any] = {name: [None] * count for name in SCHEMA}
    columns |= {
        "timestamp_ms": [START_MS + number % 3 * HOUR_MS for number in numbers],
        "service": [f"s{number % 2}" for number in numbers],
        "offset": [number // 2 for number in numbers],
        "item": [number % 2 for number in numbers],
        "partition": [partition] * count,
        "late": [False] * count,
    }
    return pl.DataFrame(columns, schema=SCHEMA)


def sink_at(path: Path, **options: Any) -> ParquetSink:
    wanted = {"partitions": 1, "shards": 4, "origin": ORIGIN, "publish_every_s": 3600.0, "publish_rows": 1_000_000}
    return ParquetSink(path=path / "archive", **(wanted | options))


def opened(sink: ParquetSink, state: bytes | None = None, part: str = "00000") -> ArchivePartition:
    sink.prepare()
    return sink.build_part("archive.archive.sink", part, state)


def left(partition: ArchivePartition) -> None:
    """Let go of a partition as a process that is killed does."""
    partition.store.close()


def seen(path: Path) -> list[tuple[int, int]]:
    """List offset and item of what readers see; it must be readable, and nothing may be there twice."""
    if not files(path / "archive"):
        return []
    found = scan(path / "archive").select("offset", "item").collect().rows()
    assert len(set(found)) == len(found), "twice"
    return sorted(found)


def write_all(sink: ParquetSink, state: bytes | None = None) -> None:
    """Write the log from its beginning, as a flow does whose recovery directory is gone."""
    partition = opened(sink, state)
    try:
        for number in range(BATCHES):
            partition.write_batch([rows(number * BATCH)])
            if number % 2:
                partition.snapshot()
            if number == 3:
                partition.store.publish()
        partition.close()
    finally:
        left(partition)


EVERYTHING = [(number // 2, number % 2) for number in range(BATCHES * BATCH)]
OPERATIONS = [(os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir")]


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], int]]:
    """A function that fails the n-th operation on the disk, or all from then on; it returns a counter of them."""

    def cut(at: int, error: BaseException) -> Callable[[], int]:
        done = 0

        def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal done
                done += 1
                if done >= at:
                    raise error
                return operation(*arguments, **options)

            return call

        for where, name in OPERATIONS:
            monkeypatch.setattr(where, name, counted(getattr(where, name)))
        return lambda: done

    return cut


def test_process_that_is_cut_off_anywhere_and_again_at_its_next_start_leaves_each_row_once_or_not_yet(
    tmp_path: Path, cut_off: Callable[..., Callable[[], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    count = cut_off(10_000, Cut())
    write_all(sink_at(tmp_path / "whole"))
    operations = count()
    monkeypatch.undo()
    assert seen(tmp_path / "whole") == EVERYTHING
    assert operations > 60
    for at in range(1, operations + 1):
        path = tmp_path / f"cut-{at}"
        path.mkdir()
        cut_off(at, Cut())
        with pytest.raises(Cut):
            write_all(sink_at(path))
        monkeypatch.undo()
        before, had = seen(path), files(path / "archive")
        assert set(before) <= set(EVERYTHING)
        cut_off(1 + at % 7, Cut())
        with pytest.raises(Cut):
            write_all(sink_at(path))
        monkeypatch.undo()
        assert set(before) <= set(seen(path))
        write_all(sink_at(path))
        assert had <= files(path / "archive"), "what readers have seen stays"
        assert seen(path) == EVERYTHING
        assert not list(path.glob("archive.staging/*/*.arrow"))


def test_disk_that_is_full_stops_the_sink_with_one_line_and_loses_nothing(
    tmp_path: Path, cut_off: Callable[..., Callable[[], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in (1, 4, 9, 14, 20, 33, 50):
        path = tmp_path / f"full-{at}"
        path.mkdir()
        cut_off(at, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(ArchiveError, match=r"can't be written: No space left on device \(\d+ KiB are free\)"):
            write_all(sink_at(path))
        monkeypatch.undo()
        write_all(sink_at(path))
        assert seen(path) == EVERYTHING


def test_small_files_of_many_snapshots_become_one_file_of_each_hour_and_shard(tmp_path: Path) -> None:
    partition = opened(sink_at(tmp_path))
    for number in range(BATCHES):
        partition.write_batch([rows(number * BATCH)])
        partition.snapshot()
    assert len(list((tmp_path / "archive.staging").glob("*/*.arrow"))) == BATCHES
    partition.store.publish()
    found = files(tmp_path / "archive")
    assert len(found) == len({Path(name).parent for name in found}) == 6
    assert "hour=2025-11-23T12/shard=02/00000-0000000000000000000-0000000000000000027.parquet" in found
    assert seen(tmp_path) == EVERYTHING
    partition.close()
    assert files(tmp_path / "archive") == found


def test_rows_are_published_when_they_are_many_or_have_waited(tmp_path: Path) -> None:
    many = sink_at(tmp_path / "many", publish_rows=25)
    few = sink_at(tmp_path / "few", publish_every_s=0.0)
    for sink in (many, few):
        sink.path.parent.mkdir()
        partition = opened(sink)
        partition.write_batch([rows(0, 20)])
        partition.snapshot()
        sink.publish_due()
        assert len(seen(sink.path.parent)) == (0 if sink is many else 20)
        partition.write_batch([rows(20, 10)])
        partition.snapshot()
        sink.publish_due()
        assert len(seen(sink.path.parent)) == 30
        partition.close()


def test_rows_in_memory_are_few(tmp_path: Path) -> None:
    sink = sink_at(tmp_path)
    partition = opened(sink)
    partition.write_batch([rows(0, STAGE_ROWS - 2), rows(STAGE_ROWS - 2, 2), rows(STAGE_ROWS, 4)])
    assert sink.counts().staged == STAGE_ROWS + 4
    left(partition)
    resumed = opened(sink_at(tmp_path))
    resumed.write_batch([rows(STAGE_ROWS - 4, 12)])
    assert resumed.repeated == 8
    resumed.close()
    assert seen(tmp_path) == [(number // 2, number % 2) for number in range(STAGE_ROWS + 8)]


def test_rows_of_a_partition_that_came_later_are_refused_until_the_next_start(tmp_path: Path) -> None:
    partition = opened(sink_at(tmp_path))
    with pytest.raises(ArchiveError, match="partition 1 was added to the topic while the flow started"):
        partition.write_batch([rows(0, partition=1)])
    left(partition)
    later = opened(sink_at(tmp_path, partitions=2), part="00001")
    later.write_batch([rows(0, partition=1)])
    later.close()
    assert len(seen(tmp_path)) == BATCH


def test_snapshot_of_rows_that_the_archive_lost_is_refused(tmp_path: Path) -> None:
    partition = opened(sink_at(tmp_path))
    partition.write_batch([rows(0)])
    state = partition.snapshot()
    left(partition)
    opened(sink_at(tmp_path), state).close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(ArchiveError, match="holds partition 0 up to offset -1, the recovery directory says 4"):
        opened(sink_at(elsewhere), state)
    with pytest.raises(StateError):
        opened(sink_at(tmp_path), of_next_release(state))
    with pytest.raises(StateError):
        opened(sink_at(tmp_path), pack("kafka-sink", 1, {}, {}))


def test_archive_of_another_topic_or_in_pieces_is_refused(tmp_path: Path) -> None:
    write_all(sink_at(tmp_path))
    with pytest.raises(ArchiveError, match='made with topic id = "1", now "2"'):
        sink_at(tmp_path, origin={**ORIGIN, "topic id": "2"}).prepare()
    (tmp_path / "archive.staging").rename(tmp_path / "gone")
    with pytest.raises(ArchiveError, match="which tells how far they go, is gone"):
        sink_at(tmp_path).prepare()
    shutil.rmtree(tmp_path / "archive.staging")
    (tmp_path / "gone").rename(tmp_path / "archive.staging")
    (tmp_path / "archive").rename(tmp_path / "lost")
    with pytest.raises(ArchiveError, match="has lost all its files"):
        sink_at(tmp_path).prepare()


@pytest.fixture
def somebody_else(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that writes partition 0."""
    code = (
        "import sys; from pathlib import Path; from sinks.parquet_store import PartitionStore;"
        "store = PartitionStore(Path(sys.argv[1]) / 'archive', Path(sys.argv[1]) / 'archive.staging', 0, shards=4);"
        "print('ready', flush=True); sys.stdin.read()"
    )
    sink_at(tmp_path).prepare()
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()


def test_partition_that_another_process_writes_is_refused_until_that_one_ends(
    tmp_path: Path, somebody_else: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.parquet_store._OPEN_TIMEOUT_S", 0.2)
    with pytest.raises(ArchiveError, match=rf"another process \(pid {somebody_else.pid}\) writes partition 0"):
        opened(sink_at(tmp_path))
    somebody_else.kill()
    write_all(sink_at(tmp_path))
    assert seen(tmp_path) == EVERYTHING


def test_page_tells_what_is_on_disk_and_what_readers_see(tmp_path: Path) -> None:
    sink = sink_at(tmp_path)
    partition = opened(sink)
    partition.write_batch([rows(0)])
    partition.snapshot()

    def told() -> dict[tuple[str, ...], float]:
        families = ArchiveCollector(sink).collect()
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    assert told()["tailmark_archive_rows_total", "staged"] == 10
    assert told()[("tailmark_archive_waiting_rows",)] == 10
    partition.close()
    assert told()["tailmark_archive_rows_total", "published"] == 10
    assert told()[("tailmark_archive_waiting_rows",)] == 0
    assert told()[("tailmark_archive_files_total",)] == 6

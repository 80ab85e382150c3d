"""`tailmark run` with the real flow and Kafka: whatever becomes of its processes, the rows are those of one run."""

from __future__ import annotations

import os
import random
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.archive_log import ArchiveOracle, assert_holds
from tests.cli.supervised import FIRST_SNAPSHOT, Supervised, living, pauses
from tests.dirty_log import Log, dirty_log
from tests.flow_process import settings_for
from tests.integration.test_anomaly import KAFKA_MS, assert_equals_oracle, publish, windows_in
from tests.kafka_log import NewRecord, produce
from tests.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Command
    from tests.conftest import KafkaCluster, Topics


class GrowingLog:
    """A dirty log that is published piece by piece, and read by the oracle."""

    def __init__(
        self, kafka: KafkaCluster, topics: Topics, *, seed: int, pieces: int, oracle: Oracle | None = None
    ) -> None:
        log = dirty_log(seed, partitions=4, records=3000, span_ms=400_000)
        cuts = sorted(random.Random(seed).sample(range(100, 650), pieces - 1))
        bounds = list(zip([0, *cuts], [*cuts, None], strict=True))
        self.oracle = oracle or Oracle()
        self._kafka, self._topics = kafka, topics
        self._pieces: list[Log] = [[values[low:high] for values in log] for low, high in bounds]
        self._offsets = [0] * len(log)

    def publish_next(self) -> None:
        records = []
        for partition, values in enumerate(self._pieces.pop(0)):
            for value in values:
                records.append(NewRecord(value, None, partition, timestamp_ms=KAFKA_MS))
                self.oracle.record(partition, self._offsets[partition], value, KAFKA_MS)
                self._offsets[partition] += 1
        produce(self._kafka.client_options, self._topics.events, records)


def test_two_processes_write_the_rows_of_the_oracle_and_end_by_themselves(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    oracle = publish(kafka, topics, dirty_log(21, partitions=4, records=3000, span_ms=400_000))
    env = settings_for(kafka, topics, KAFKA__STOP_AT_END="true")
    with Supervised(env, tmp_path / "recovery", ("--processes", "2")) as cluster:
        assert cluster.wait() == 0, cluster.lines
    assert_equals_oracle(windows_in(kafka, topics), oracle)


def test_rescaled_and_killed_cluster_writes_the_rows_of_one_run(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    log, recovery = GrowingLog(kafka, topics, seed=22, pieces=4), tmp_path / "recovery"
    env = settings_for(kafka, topics)
    log.publish_next()
    with Supervised(env, recovery) as cluster:
        cluster.until_said(FIRST_SNAPSHOT)
        assert cluster.stop(signal.SIGTERM) == 0, cluster.lines
    log.publish_next()
    with Supervised(env, recovery, ("--processes", "2", "--first-delay", "0")) as cluster:
        first = cluster.pids()
        cluster.until_said(FIRST_SNAPSHOT)
        log.publish_next()
        os.kill(first[1], signal.SIGKILL)
        assert set(first).isdisjoint(cluster.pids(start=2)), "all were started again"
        assert cluster.said(f"process 1 (pid {first[1]}) was killed by SIGKILL")
        cluster.until_said(FIRST_SNAPSHOT, times=2)
        assert cluster.stop(signal.SIGINT) == 0, cluster.lines
    log.publish_next()
    with Supervised({**env, "TAILMARK_KAFKA__STOP_AT_END": "true"}, recovery) as cluster:
        assert cluster.wait() == 0, cluster.lines
    assert_equals_oracle(windows_in(kafka, topics), log.oracle)


def test_rescaled_and_killed_archive_holds_every_event_once(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    oracle, recovery, path = ArchiveOracle(), tmp_path / "recovery", tmp_path / "archive"
    log = GrowingLog(kafka, topics, seed=23, pieces=3, oracle=oracle)
    env = settings_for(kafka, topics, ARCHIVE__PATH=str(path), ARCHIVE__PUBLISH_EVERY_MS="300")
    log.publish_next()
    with Supervised(env, recovery, ("--processes", "2", "--first-delay", "0"), "archive") as cluster:
        first = cluster.pids()
        cluster.until_said(FIRST_SNAPSHOT)
        log.publish_next()
        os.kill(first[0], signal.SIGKILL)
        cluster.until_said(FIRST_SNAPSHOT, times=2)
        assert cluster.stop() == 0, cluster.lines
    log.publish_next()
    with Supervised({**env, "TAILMARK_KAFKA__STOP_AT_END": "true"}, recovery, flow="archive") as cluster:
        assert cluster.wait() == 0, cluster.lines
    assert_holds(path, oracle)


def test_cluster_with_a_frozen_process_is_restarted(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> None:
    options = ("--processes", "2", "--stall-after", "6", "--first-delay", "0")
    with Supervised(settings_for(kafka, topics), tmp_path / "recovery", options) as cluster:
        frozen = cluster.pids()[0]
        cluster.until_said(FIRST_SNAPSHOT)
        os.kill(frozen, signal.SIGSTOP)
        cluster.until_said(f"process 0 (pid {frozen}) has not answered")
        cluster.until_said(FIRST_SNAPSHOT, times=2)
        assert cluster.stop() == 0, cluster.lines


def test_no_process_outlives_a_killed_supervisor(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> None:
    with Supervised(settings_for(kafka, topics), tmp_path / "recovery", ("--processes", "3")) as cluster:
        pids = cluster.pids()
        assert len(living(pids)) == 3
        cluster.process.kill()
        for _ in pauses():
            if not living(pids):
                break
        assert living(pids) == []


def test_cluster_that_can_not_start_is_given_up_with_the_reason(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    env = settings_for(kafka, topics)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(env["TAILMARK_PROMETHEUS__PORT"])))
        taken.listen()
        with Supervised(env, tmp_path / "recovery", ("--max-restarts", "1", "--first-delay", "0")) as cluster:
            assert cluster.wait() == 1, cluster.lines
    flow_lines = [line for line in cluster.lines if line["origin"] == "flow" and line["level"] == "error"]
    assert len(flow_lines) == 2, "one for each start"
    assert "can't be listened on" in flow_lines[0]["message"]
    assert cluster.said("gave up: there were 1 restarts")


def test_second_supervisor_leaves_the_first_one_alone(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> None:
    env = settings_for(kafka, topics)
    with Supervised(env, tmp_path / "recovery") as first:
        pids = first.pids()
        with Supervised(settings_for(kafka, topics), tmp_path / "recovery") as second:
            assert second.wait() == 1
            assert second.process.stderr is not None
            assert f"belongs to another supervisor (pid {first.process.pid})" in second.process.stderr.read()
            assert second.lines == []
        assert living(pids) == pids


@pytest.fixture
def refused(tailmark: Command) -> Callable[..., str]:
    """A function that runs `tailmark run` on something it refuses, and gives what it says."""

    def run(*arguments: str, **environ: str) -> str:
        code, out, err = tailmark(environ, "run", *arguments)
        assert (code, out) == (2, "")
        return err

    return run


def test_unknown_flow_is_refused_in_one_line_with_the_names_of_all(refused: Callable[..., str]) -> None:
    said = refused("anomalies")
    assert said.startswith("there is no flow 'anomalies'; the flows are anomaly")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "environ", "why"),
    [
        ((), {"TAILMARK_WINDOW__SLIDE_MS": "7000"}, "TAILMARK_WINDOW__SLIDE_MS=7000: must divide"),
        (("-n", "2"), {"TAILMARK_PROMETHEUS__PORT": "65530"}, "leaves no port for process 1"),
        (("--stall-after", "5"), {}, "--stall-after 5: must be more than --snapshot-interval (5)"),
    ],
)
def test_impossible_settings_are_refused_in_one_line_before_anything_starts(
    tmp_path: Path, refused: Callable[..., str], options: tuple[str, ...], environ: dict[str, str], why: str
) -> None:
    said = refused("anomaly", "--recovery-dir", str(tmp_path / "recovery"), *options, **environ)
    assert why in said
    assert said.count("\n") == 1
    assert not (tmp_path / "recovery").exists()


@pytest.mark.parametrize("option", [("--processes", "0"), ("--snapshot-interval", "0.5"), ("--log-format", "xml")])
def test_impossible_option_is_refused_without_a_traceback(refused: Callable[..., str], option: tuple[str, str]) -> None:
    said = refused("anomaly", *option)
    assert option[0] in said
    assert "Traceback" not in said

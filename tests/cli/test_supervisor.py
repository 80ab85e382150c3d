"""What the supervisor does about processes that end, hang, or don't listen, with small programs in place of flows."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from cli.supervision.log_lines import Log, LogFormat
from cli.supervision.restarts import Restarts
from cli.supervision.supervisor import SECOND_SIGNAL_AFTER_S, Supervisor
from cli.supervision.watchdog import Limits
from tests.cli.scripted_plan import pids, scripted, starts
from tests.cli.supervised import FIRST_SNAPSHOT, living, pauses

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENT = Limits(start_s=60.0, stall_s=60.0)


class Stage:
    """A supervisor in this process, with its log, and a thread that acts on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stream = io.BytesIO()

    def play(
        self,
        script: str,
        act: Callable[[], None] | None = None,
        *,
        processes: int = 1,
        restarts: int = 3,
        first_delay_s: float = 0.01,
        limits: Limits = PATIENT,
        stop_s: float = 60.0,
    ) -> int:
        """Run the supervisor to its end; no process may be left."""
        log = Log(self._stream, LogFormat.JSON)
        plan = scripted(self.folder, script, processes)
        restarted = Restarts(restarts, within_s=600.0, first_delay_s=first_delay_s)
        actor = threading.Thread(target=act) if act is not None else None
        if actor is not None:
            actor.start()
        code = asyncio.run(self._run(Supervisor(plan, restarted, limits, stop_s, log)))
        if actor is not None:
            actor.join()
        assert living(pids(self.folder)) == []
        return code

    async def _run(self, supervisor: Supervisor) -> int:
        return await asyncio.wait_for(supervisor.run(), 60.0)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def said(self, text: str) -> int:
        return sum(text in line["message"] for line in self.log())

    def until_said(self, text: str) -> None:
        for _ in pauses():
            if self.said(text):
                return

    def signal_when(self, text: str, *, number: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
        """Make an actor that sends this process a signal once the log says something."""

        def act() -> None:
            self.until_said(text)
            os.kill(os.getpid(), number)

        return act


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_cluster_whose_processes_all_end_well_has_ended_well(stage: Stage) -> None:
    assert stage.play("time.sleep(0.3 * number)", processes=2) == 0
    assert [starts(stage.folder, number) for number in (0, 1)] == [1, 1]


def test_all_are_started_again_when_one_dies(stage: Stage) -> None:
    script = "start or (sleep() if number == 0 else (wait_for(0), sys.exit(3)))"
    assert stage.play(script, processes=2) == 0
    assert [starts(stage.folder, number) for number in (0, 1)] == [2, 2]
    assert stage.said("ended with exit code 3") == 1


def test_supervisor_gives_up_after_the_limit_of_restarts(stage: Stage) -> None:
    assert stage.play("sys.exit(1)", restarts=2) == 1
    assert starts(stage.folder) == 3
    assert stage.said("gave up") == 1


def test_bad_settings_of_a_process_are_not_tried_again(stage: Stage) -> None:
    assert stage.play("sleep() if number else sys.exit(2)", processes=2) == 2
    assert starts(stage.folder, 0) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_lets_every_process_end_by_itself(stage: Stage, number: signal.Signals) -> None:
    act = stage.signal_when(FIRST_SNAPSHOT, number=number)
    script = "signal.signal(signal.SIGTERM, lambda *_: (print('drained'), os._exit(0))); serve(); sleep()"
    assert stage.play(script, act, processes=2) == 0
    assert stage.said("drained") == 2
    assert stage.said("stopped with a snapshot") == 1


def test_signal_while_starting_does_not_wait_for_processes_that_do_not_know_it(stage: Stage) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); sleep()"
    assert stage.play(script, stage.signal_when("started flow")) == 0
    assert stage.said("stopped before anything was read") == 1


def test_signal_between_two_starts_ends_the_wait(stage: Stage) -> None:
    assert stage.play("sys.exit(1)", stage.signal_when("restart 1 of"), first_delay_s=1000.0) == 0
    assert starts(stage.folder) == 1


def test_drain_that_takes_too_long_ends_in_a_kill_and_says_so(stage: Stage) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); serve(); sleep()"
    assert stage.play(script, stage.signal_when(FIRST_SNAPSHOT), stop_s=0.2) == 1
    assert stage.said("stopped without the last snapshot; killed process 0") == 1


def test_process_that_fails_to_drain_ends_the_others_and_says_so(stage: Stage) -> None:
    script = "on_term(5) if number else signal.signal(signal.SIGTERM, signal.SIG_IGN); serve(); sleep()"
    assert stage.play(script, stage.signal_when(FIRST_SNAPSHOT), processes=2) == 1
    assert stage.said("ended with exit code 5") == 1
    assert stage.said("killed process 0") == 1


def test_second_signal_kills_but_an_echo_of_the_first_does_not(stage: Stage) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); serve(); sleep()"

    def act() -> None:
        stage.until_said(FIRST_SNAPSHOT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(SECOND_SIGNAL_AFTER_S + 0.2)
        os.kill(os.getpid(), signal.SIGINT)

    assert stage.play(script, act) == 1
    assert stage.said("again") == 1


def test_frozen_process_hears_the_wish_to_stop(stage: Stage) -> None:
    def act() -> None:
        stage.until_said(FIRST_SNAPSHOT)
        os.kill(pids(stage.folder)[0], signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGTERM)

    assert stage.play("on_term(0); serve(); sleep()", act) == 0


def test_cluster_whose_epochs_stand_still_is_restarted(stage: Stage) -> None:
    script = "sys.exit(0) if start else None; serve(); time.sleep(1); facts['epoch_age_seconds'] = 9.0; sleep()"
    assert stage.play(script, limits=Limits(start_s=60.0, stall_s=5.0)) == 0
    assert stage.said("has ended no epoch for 9 s") == 1
    assert starts(stage.folder) == 2


def test_cluster_that_never_begins_is_restarted(stage: Stage) -> None:
    script = "sys.exit(0) if start else None; facts['restored'] = False; serve(); sleep()"
    assert stage.play(script, restarts=30, limits=Limits(start_s=2.0, stall_s=60.0)) == 0
    assert stage.said("has not begun") >= 1


def test_lines_of_the_processes_are_in_the_log_with_their_origin(stage: Stage) -> None:
    script = (
        "print('to stdout'); print('tailmark: no broker', file=sys.stderr); print('a\\x1b[2Jb'); print('end', end='')"
    )
    assert stage.play(script, processes=2) == 0
    lines = [line for line in stage.log() if line["origin"] == "flow" and line["process"] == 1]
    assert [line["message"] for line in lines] == ["to stdout", "no broker", "a\x1b[2Jb", "end"]
    assert [line["level"] for line in lines] == ["info", "error", "info", "info"]


def test_variables_of_bytewax_do_not_reach_the_processes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYTEWAX_ADDRESSES", "elsewhere:1")
    assert stage.play("sys.exit(1 if 'BYTEWAX_ADDRESSES' in os.environ else 0)") == 0
    assert stage.said("BYTEWAX_ADDRESSES") == 1

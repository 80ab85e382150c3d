"""The parts of the supervisor that need no process: the log, the limit of restarts, what counts as standing still."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.supervision.claim import ClaimError, claim
from cli.supervision.cluster import how
from cli.supervision.log_lines import MAX_LINE_BYTES, MAX_TRACEBACK_LINES, Entries, Log, LogFormat
from cli.supervision.restarts import LONGEST_DELAY_S, Restarts
from cli.supervision.watchdog import Limits, Pulse, Watchdog

if TYPE_CHECKING:
    from pathlib import Path


@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="ascii"))), st.integers(1, 10))
def test_lines_do_not_depend_on_how_their_bytes_arrive(texts: list[str], size: int) -> None:
    data = "\n".join(texts).encode()
    entries = Entries()
    got = [line for at in range(0, len(data), size) for line in entries.feed(data[at : at + size])]
    got += entries.feed(b"")
    assert got == [stripped for text in texts if (stripped := text.rstrip())]


def test_endless_line_is_cut_and_not_kept_in_memory() -> None:
    entries = Entries()
    got = [len(line) for _ in range(5) for line in entries.feed(b"x" * MAX_LINE_BYTES)]
    assert got == [MAX_LINE_BYTES] * 5


TRACEBACK = "Traceback (most recent call last):\n  File x, line 1\n    raise y\nValueError: no"


def test_traceback_is_one_entry() -> None:
    entries = Entries()
    got = list(entries.feed(f"before\n{TRACEBACK}\nafter\n{TRACEBACK}".encode()))
    got += entries.feed(b"")
    assert got == ["before", TRACEBACK, "after", TRACEBACK]


def test_endless_traceback_is_not_kept_in_memory() -> None:
    entries = Entries()
    head, *lines = entries.feed((TRACEBACK[:35] + "  deeper\n" * 1000).encode())
    assert head.count("\n") + 1 == MAX_TRACEBACK_LINES
    assert lines == ["  deeper"] * (1001 - MAX_TRACEBACK_LINES)


def test_traceback_for_people_is_indented_under_its_time() -> None:
    stream = io.BytesIO()
    Log(stream, LogFormat.TEXT).relay(0, 1, TRACEBACK)
    first, *others = stream.getvalue().decode().splitlines()
    assert first.endswith("error   process 0  | Traceback (most recent call last):")
    assert others == ["      File x, line 1", "        raise y", "    ValueError: no"]


def test_line_for_people_can_not_command_their_terminal() -> None:
    stream = io.BytesIO()
    Log(stream, LogFormat.TEXT).relay(3, 77, "a\x1b[2Jb\rc\tü")
    assert stream.getvalue().decode().endswith("info    process 3  | a\\x1b[2Jb\\x0dc\tü\n")


def test_line_for_programs_has_the_facts() -> None:
    stream = io.BytesIO()
    Log(stream, LogFormat.JSON).say("it ended", level="error", exit_code=3)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "error", "origin": "supervisor", "message": "it ended", "exit_code": 3}


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("tailmark: no broker", "error"),
        ("%3|1764547200.1|FAIL|tailmark#consumer-1| down", "error"),
        ("%4|1764547200.1|FAIL|tailmark#consumer-1| slow", "warning"),
        ("%7|1764547200.1|FETCH|tailmark#consumer-1| news", "debug"),
        ("worker 1:\terror connecting to worker 0: Connection refused (os error 111); retrying", "debug"),
        (TRACEBACK, "error"),
        ("anything else", "info"),
    ],
)
def test_level_of_a_line_is_that_of_its_writer(line: str, level: str) -> None:
    stream = io.BytesIO()
    Log(stream, LogFormat.JSON).relay(0, 1, line)
    assert json.loads(stream.getvalue())["level"] == level


class Gone(io.BytesIO):
    def write(self, _data: object) -> int:
        raise BrokenPipeError


class Slow(io.BytesIO):
    def write(self, data: Any) -> int:
        return super().write(data[:7])


def test_log_outlives_its_reader() -> None:
    stream = Gone()
    Log(stream, LogFormat.TEXT).say("nobody reads this")
    assert stream.getvalue() == b""


def test_line_that_does_not_fit_at_once_is_written_whole() -> None:
    stream = Slow()
    Log(stream, LogFormat.TEXT).say("longer than a pipe has room for")
    assert stream.getvalue().endswith(b"supervisor | longer than a pipe has room for\n")


def test_delay_doubles_up_to_a_limit_and_is_forgotten_in_time() -> None:
    restarts = Restarts(most=9, within_s=100.0, first_delay_s=1.0)
    assert [restarts.next_delay_s(0.0) for _ in range(9)] == [1, 2, 4, 8, 16, *[LONGEST_DELAY_S] * 4]
    assert restarts.next_delay_s(100.0) is None
    assert restarts.next_delay_s(100.1) == 1.0


def test_no_restart_may_mean_none_at_all() -> None:
    assert Restarts(most=0, within_s=100.0, first_delay_s=1.0).next_delay_s(0.0) is None


def watchdog(*pulses: Pulse) -> tuple[Watchdog, list[float]]:
    now = [0.0]
    return Watchdog(pulses, Limits(start_s=100.0, stall_s=10.0), clock=lambda: now[0]), now


def test_start_may_take_longer_than_an_epoch_later() -> None:
    dog, now = watchdog(Pulse("a", "h", 1), Pulse("b", "h", 2, answered_s=50.0, epoch_age_s=50.0))
    now[0] = 100.0
    assert dog.reasons() == []
    now[0] = 101.0
    assert dog.reasons() == ["a has not begun after 101 s", "b has not begun after 101 s"]


def test_process_that_reads_nothing_ends_no_epoch_and_is_no_sign_of_a_stall() -> None:
    reader, idle = Pulse("reader", "h", 1), Pulse("idle", "h", 2, epoch_age_s=500.0)
    dog, now = watchdog(reader, idle)
    reader.restored = True
    now[0] = reader.answered_s = idle.answered_s = 500.0
    assert dog.up
    assert dog.reasons() == []
    reader.epoch_age_s = 10.1
    assert dog.reasons() == ["reader has ended no epoch for 10 s"]


def test_process_that_does_not_answer_is_noticed_although_it_was_well() -> None:
    silent, well = (Pulse(name, "h", 1, answered_s=0.0, restored=True) for name in ("silent", "well"))
    dog, now = watchdog(silent, well)
    now[0] = 10.5
    well.answered_s = 10.0
    assert dog.reasons() == ["silent has not answered for 10 s"]
    silent.gone = True
    assert dog.reasons() == []


def test_directory_has_one_supervisor_at_a_time(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "recovery"
    another = pytest.raises(ClaimError, match=f"belongs to another supervisor .pid {os.getpid()}.")
    with claim(directory), another:
        claim(directory).__enter__()
    with claim(directory):
        assert directory.is_dir()


def test_directory_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClaimError, match=r"recovery directory .*/file/recovery can't be used: Not a directory"):
        claim(tmp_path / "file" / "recovery").__enter__()


@pytest.mark.parametrize(
    ("code", "words"),
    [(1, "ended with exit code 1"), (-9, "was killed by SIGKILL"), (-35, "was killed by signal 35")],
)
def test_end_of_a_process_is_said_in_words(code: int, words: str) -> None:
    assert how(code) == words

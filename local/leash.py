"""Keep one child process alive for exactly as long as its owner lives.

Run as a script, isolated (`python -I -S leash.py OWNER_PID OWNER_STARTED PID_FILE STOP_S COMMAND...`), so that it
starts in milliseconds and imports nothing of ours. The leash is a process of its own because the kernel's parent-death
signal fires when the *thread* that forked ends: a test or a demo that starts a broker in a worker thread would lose it.
The leash has one thread, so here the signal is safe, and it covers the case that the leash itself is killed.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
OWNER_POLL_S = 0.25
WATCHED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
STATE_FIELD, STARTED_FIELD = 0, 19  # in /proc/PID/stat, counted after the command's closing parenthesis


def started_ticks(pid: int) -> int | None:
    """Return when a running process started, which tells it from a later process with the same id.

    Args:
        pid: Process id.

    Returns:
        Clock ticks since boot, or None when no such process exists or it has ended and was not reaped yet.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[STATE_FIELD] in "ZX" else int(fields[STARTED_FIELD])


def _run_command(command: list[str], leash_pid: int) -> NoReturn:
    """Become the command, tied to the leash: the kernel kills it when the leash is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != leash_pid:
        os._exit(1)  # the leash ended between fork and prctl: no signal will come
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
    os.execv(command[0], command)  # noqa: S606 - no shell, and the command is the owner's


def _write_pid_file(path: Path, child_pid: int) -> None:
    """Name the leash and its child for a later start that has to clean up after this one."""
    processes = {"leash": [os.getpid(), started_ticks(os.getpid())], "broker": [child_pid, started_ticks(child_pid)]}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(processes), encoding="utf-8")
    partial.replace(path)


def _exit_code(child_pid: int) -> int | None:
    """Return the child's exit code (minus the signal that ended it), or None while it runs."""
    reaped, status = os.waitpid(child_pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if reaped else None


def _stop(child_pid: int, stop_s: float) -> int:
    """Ask the child to end, then force it: at most `stop_s` seconds in all."""
    os.kill(child_pid, signal.SIGTERM)
    os.kill(child_pid, signal.SIGCONT)  # a frozen child would not see the request
    deadline = time.monotonic() + stop_s
    while time.monotonic() < deadline:
        code = _exit_code(child_pid)
        if code is not None:
            return code
        signal.sigtimedwait({signal.SIGCHLD}, OWNER_POLL_S)
    os.kill(child_pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child_pid, 0)[1])


def _hold(child_pid: int, owner: tuple[int, int], stop_s: float) -> int:
    """Wait until the child ends, the owner ends or somebody asks the leash to end; return the child's exit code."""
    while True:
        received = signal.sigtimedwait(WATCHED, OWNER_POLL_S)
        code = _exit_code(child_pid)
        if code is not None:
            return code
        asked = received is not None and received.si_signo != signal.SIGCHLD
        if asked or started_ticks(owner[0]) != owner[1]:
            return _stop(child_pid, stop_s)


def main(arguments: list[str]) -> int:
    """Start the command, hold it, and return its exit code (128 + signal when a signal ended it)."""
    owner_pid, owner_started, pid_file, stop_s, *command = arguments
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    leash_pid = os.getpid()
    child_pid = os.fork()
    if child_pid == 0:
        _run_command(command, leash_pid)
    _write_pid_file(Path(pid_file), child_pid)
    code = _hold(child_pid, (int(owner_pid), int(owner_started)), float(stop_s))
    with contextlib.suppress(FileNotFoundError):
        Path(pid_file).unlink()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

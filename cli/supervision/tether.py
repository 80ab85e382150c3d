"""Tie a program to the one that starts it: when that one is gone, however it died, the kernel kills this one.

Run as a script, isolated (`python -I -S tether.py PARENT_PID COMMAND...`), so that it costs milliseconds. It becomes
the command, which keeps its process id, its exit code, and the kernel's promise. The signal comes when the *thread*
that forked ends, so that thread must be the main one.
"""

import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> NoReturn:
    """Become the command, unless the parent is gone already."""
    parent_pid, *command = arguments
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent_pid):
        os._exit(1)  # the parent ended before prctl: no signal will come
    os.execv(command[0], command)  # noqa: S606 - no shell, and the command is the parent's


if __name__ == "__main__":
    main(sys.argv[1:])

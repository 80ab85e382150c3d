"""The flow that hears a slice: a process of its own, which ends with this one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from cli.supervision import tether
from cli.supervision.cluster import BYTEWAX_PREFIX
from local.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.settings import Settings


def environment(
    settings: Settings, environ: Mapping[str, str], *, flow: str, names: Mapping[str, str], prefix: str, remote: str
) -> dict[str, str]:
    """Make the variables of a flow that hears a slice, tells nobody who lives, and ends when it has heard it.

    Args:
        settings: Of the live flows.
        environ: Their variables.
        flow: Name of the flow.
        names: Topics of the replay, by role.
        prefix: Before the names of everything that it writes.
        remote: Where the bridge writes samples to; empty for nowhere.

    Returns:
        All variables of the process.
    """
    own = {f"TAILMARK_KAFKA__TOPICS__{role.upper()}": name for role, name in names.items()}
    own |= {
        "TAILMARK_KAFKA__GROUP_ID": f"{prefix}{settings.kafka.group_for(flow)}",
        "TAILMARK_KAFKA__STOP_AT_END": "true",
        "TAILMARK_PROMETHEUS__PORT": str(free_port()),
        "TAILMARK_PROMETHEUS__REMOTE_WRITE_URL": remote,
        # Nobody is woken for what is past.
        "TAILMARK_ALERTMANAGER__URLS": "",
        "TAILMARK_ARCHIVE__PATH": archive_path(settings, prefix),
    }
    kept = {name: value for name, value in environ.items() if not name.startswith(BYTEWAX_PREFIX)}
    return {**kept, **own, "RUST_BACKTRACE": "0"}


def archive_path(settings: Settings, prefix: str) -> str:
    """Name the directory that the archive flow writes a slice to."""
    return f"{settings.archive.path.rstrip('/')}-{prefix.strip('.-_')}"


def run(flow: str, variables: Mapping[str, str]) -> int:
    """Run a flow to its end.

    It says what goes wrong on stderr; SIGINT ends it.

    Args:
        flow: Its name.
        variables: From `environment`.

    Returns:
        Its exit code.
    """
    command = [sys.executable, "-m", "bytewax.run", f"flows.{flow}"]
    tied = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command]
    # The command is ours, and its variables are those that a flow is configured with anyway.
    with subprocess.Popen(tied, env=dict(variables), stdin=subprocess.DEVNULL, start_new_session=True) as process:  # noqa: S603
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.kill()
            raise

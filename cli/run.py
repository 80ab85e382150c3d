"""`tailmark run`: a flow as a supervised cluster of processes on this machine."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn, cast

import typer

from cli.supervision.claim import ClaimError, claim
from cli.supervision.cluster import Plan
from cli.supervision.log_lines import Log, LogFormat
from cli.supervision.restarts import Restarts
from cli.supervision.supervisor import EXIT_BAD_SETTINGS, EXIT_FAILURE, Supervisor
from cli.supervision.watchdog import Limits
from flows.settings import load_settings
from operators.vitals import stalled_after_s

if TYPE_CHECKING:
    from typing import BinaryIO, TextIO

MOST_PROCESSES: Final = 64
_FLOWS: Final = ("anomaly", "bridge", "archive")


def flows() -> list[str]:
    """List the flows that can be run."""
    return [name for name in _FLOWS if find_spec(f"flows.{name}") is not None]


def run(
    flow: Annotated[str, typer.Argument(help="anomaly, bridge or archive.", show_default=False)],
    *,
    processes: Annotated[int, typer.Option("--processes", "-n", min=1, max=MOST_PROCESSES, help="How many.")] = 1,
    recovery_dir: Annotated[
        Path | None, typer.Option(help="Where the state is kept.", show_default="recovery/FLOW")
    ] = None,
    snapshot_interval: Annotated[int, typer.Option(min=1, help="Seconds from one snapshot to the next.")] = 5,
    backup_interval: Annotated[
        int, typer.Option(min=0, help="Seconds that superseded snapshots are kept, for backups of the directory.")
    ] = 0,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help="How log lines are written.", show_default="text on a terminal, else json"),
    ] = None,
    stop_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds that a clean stop may take before the processes are killed.")
    ] = 25,
    start_timeout: Annotated[float, typer.Option(min=1, help="Seconds that a start may take.")] = 180,
    stall_after: Annotated[
        float | None,
        typer.Option(
            min=1, help="Seconds without progress after which all are restarted.", show_default="60, or 6 snapshots"
        ),
    ] = None,
    max_restarts: Annotated[int, typer.Option(min=0, help="Give up after so many within --restart-window.")] = 10,
    restart_window: Annotated[float, typer.Option(min=1, help="Seconds.")] = 600,
    first_delay: Annotated[float, typer.Option(min=0, hidden=True)] = 0.5,
) -> None:
    """Run a flow as a cluster of processes on this machine, and keep it running.

    When a process dies or hangs, all are started again from the last snapshot: nothing is lost or written twice.
    SIGTERM and SIGINT stop with a snapshot. To rescale, stop, and start with another number of processes.
    Process i serves its page on the port of the settings plus 10 * i.

    Exit codes: 0 stopped cleanly, 1 could not be kept running, 2 bad settings.

    Example: tailmark run anomaly --processes 4 --recovery-dir /var/lib/tailmark/anomaly
    """
    if flow not in flows():
        _refuse(f"there is no flow {flow!r}; the flows are {', '.join(flows())}")
    stall_s = _stall_s(stall_after, snapshot_interval)
    settings = load_settings()
    plan = Plan(
        flow=flow,
        processes=processes,
        recovery=recovery_dir or Path("recovery") / flow,
        snapshot_interval_s=snapshot_interval,
        backup_interval_s=backup_interval,
        pages=[(settings.prometheus.host, settings.prometheus.port_for(flow, number)) for number in range(processes)],
    )
    log = Log(_unbuffered(sys.stdout), log_format or (LogFormat.TEXT if sys.stdout.isatty() else LogFormat.JSON))
    readers = settings.kafka.source_shards
    if processes > readers:
        log.say(f"only {readers} of the processes read, as many as kafka.source_shards says", level="warning")
    # The first snapshot is due an interval after the start.
    limits = Limits(start_s=start_timeout + snapshot_interval, stall_s=stall_s)
    restarts = Restarts(most=max_restarts, within_s=restart_window, first_delay_s=first_delay)
    raise typer.Exit(_supervise(Supervisor(plan, restarts, limits, stop_timeout, log)))


def _stall_s(stall_after: float | None, snapshot_interval: int) -> float:
    stall_s = stalled_after_s(snapshot_interval) if stall_after is None else stall_after
    if stall_s <= snapshot_interval:
        _refuse(
            f"--stall-after {stall_s:g}: must be more than --snapshot-interval ({snapshot_interval}), or the processes "
            f"would be restarted for waiting for the next snapshot"
        )
    return stall_s


def _unbuffered(stream: TextIO) -> BinaryIO:
    return cast("BinaryIO", FileIO(stream.fileno(), "w", closefd=False))


def _supervise(supervisor: Supervisor) -> int:
    try:
        with claim(supervisor.plan.recovery):
            return asyncio.run(supervisor.run())
    except ClaimError as error:
        typer.echo(str(error), err=True)
        return EXIT_FAILURE


def _refuse(why: str) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(EXIT_BAD_SETTINGS)

"""The command line of `tailmark status`."""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.console import Console

from cli.run import flows
from cli.status.report import gather
from cli.status.tables import tables
from flows.settings import load_settings

EXIT_PROBLEMS: Final = 1

_WIDTH_OF_A_PIPE: Final = 160


class Output(StrEnum):
    """How the report is written."""

    TABLE = "table"
    JSON = "json"


def status(*, output: Annotated[Output, typer.Option(help="For people, or for programs.")] = Output.TABLE) -> None:
    """Show how the flows, their topics and their alerts are doing.

    Asks the pages of the processes on this machine and Kafka, for a few seconds at most. An open alert is no problem of
    the pipeline: it is shown, and the exit code stays 0.

    Exit codes: 0 all is well, 1 a flow is not ready, or somebody does not answer, 2 bad settings.

    Example: tailmark status --output json | jq .lag_events
    """
    report = gather(load_settings(), flows())
    if output is Output.JSON:
        typer.echo(json.dumps(report.as_data(), indent=2))
    else:
        console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE, highlight=False)
        console.print(tables(report, time.time()))
    raise typer.Exit(EXIT_PROBLEMS if report.problems else 0)

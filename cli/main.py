"""`tailmark`: what a person types. Each command has a module of its own; this one only gathers them."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cli import config
from cli.dlq import command as dlq
from cli.explain import explain
from cli.feedback import feedback
from cli.replay.command import replay
from cli.run import run
from cli.status.command import status
from flows.settings import SettingsError

EXIT_USAGE = 2
"""A setting, an argument or an option is wrong; nothing was read or written."""

app = typer.Typer(
    name="tailmark",
    help="Tail latency on a stream: windows, anomaly scores and alerts from Kafka.",
    epilog="Settings come from TAILMARK_ variables and the TOML file that TAILMARK_CONFIG names.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command("run")(run)
app.command("status")(status)
app.command("explain")(explain)
app.command("feedback")(feedback)
app.command("replay")(replay)
app.add_typer(dlq.app, name="dlq")
app.add_typer(config.app, name="config")


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer hands the value of the option over by position
    if asked:
        typer.echo(f"tailmark {version('tailmark')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command on the command line; a setting nobody can run with is one line and exit code 2."""
    try:
        app(prog_name="tailmark")
    except SettingsError as error:
        typer.echo(str(error), err=True)
        sys.exit(EXIT_USAGE)

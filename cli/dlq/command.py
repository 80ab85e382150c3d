"""The command lines of `tailmark dlq`."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, get_args

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from cli.dlq.letters import UNKNOWN, read_letters
from cli.dlq.memory import Memory
from cli.dlq.resend import resend
from cli.dlq.summary import Summary, tables
from flows.settings import load_settings
from operators.kernels.decode import Reason
from sources.errors import FlowError
from sources.topic import partitions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.dlq.resend import Resent

EXIT_FAILURE: Final = 1
REASONS: Final = (*get_args(Reason), UNKNOWN)

_WIDTH_OF_A_PIPE: Final = 160

app = typer.Typer(help="Dead letters: look at them, and send them back.", no_args_is_help=True)


class Output(StrEnum):
    """How the result is written."""

    TABLE = "table"
    JSON = "json"


def _known(reasons: list[str]) -> list[str]:
    for reason in reasons:
        if reason not in REASONS:
            raise typer.BadParameter(f"{reason!r} is none; they are {', '.join(REASONS)}")
    return reasons


_ReasonOption = Annotated[
    list[str], typer.Option("--reason", help="Only letters with this reason; may be given again.", callback=_known)
]
_OutputOption = Annotated[Output, typer.Option(help="For people, or for programs.")]


@app.command()
def inspect(
    *,
    reason: _ReasonOption = [],  # noqa: B006 - typer makes a list of its own
    samples: Annotated[int, typer.Option(min=0, max=1000, help="Latest letters to show of each reason.")] = 3,
    output: _OutputOption = Output.TABLE,
) -> None:
    """Show what was rejected: reasons, counts, and the latest letters with where they came from.

    Exit codes: 0 read, whether there are letters or not, 1 Kafka or the topic is not there, 2 bad settings or options.

    Example: tailmark dlq inspect --reason missing_field --samples 10
    """
    settings = load_settings()
    client, topic = settings.client(), settings.kafka.topics.dead_letter
    with _one_line(), _progress("letters read") as advance:
        partitions_of(client, topic)
        memory, summary = Memory(client, topic, create=False), Summary(samples)
        for letters in read_letters(client, topic):
            summary.add(letters, reason, memory)
            advance(len(letters))
    if output is Output.JSON:
        typer.echo(json.dumps(summary.as_data(), indent=2))
    else:
        _console().print(tables(summary))


@app.command()
def replay(
    *,
    reason: _ReasonOption = [],  # noqa: B006 - typer makes a list of its own
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be sent.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Send those too that were sent back before.")] = False,
    output: _OutputOption = Output.TABLE,
) -> None:
    """Send dead letters back to the topic of events, with their key, their headers and the partition they had.

    A letter is sent once, however often this is run and wherever it is stopped. What was sent is remembered beside
    the letters, in the topic DEAD_LETTER.replayed. A record that is still bad becomes a new letter.

    Exit codes: 0 sent, or nothing to send, 1 Kafka did not take them all, 2 bad settings or options.

    Example: tailmark dlq replay --reason timestamp_in_future --dry-run
    """
    settings = load_settings()
    with _one_line(), _progress("letters looked at") as advance:
        found = resend(settings, reason, dry_run=dry_run, again=again, progress=advance)
    if output is Output.JSON:
        typer.echo(json.dumps({"dry_run": dry_run, **_data(found)}, indent=2))
        return
    verb = "would be sent" if dry_run else "sent"
    for name, count in sorted(found.sent.items()):
        typer.echo(f"{name}: {count:,} {verb}")
    typer.echo(f"{found.sent.total():,} letters {verb} to {settings.kafka.topics.events}")
    if found.known:
        typer.echo(f"{found.known.total():,} were sent before; --again sends them once more")
    if found.foreign:
        typer.echo(f"{found.foreign:,} came from another topic, and stay")


def _data(found: Resent) -> dict[str, object]:
    return {"sent": dict(found.sent), "sent_before": dict(found.known), "foreign": found.foreign}


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except FlowError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_FAILURE) from None


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """Count on a terminal, and nowhere else."""
    columns = (TextColumn(f"{{task.completed:,.0f}} {what}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda count: progress.advance(task, count)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE, highlight=False)

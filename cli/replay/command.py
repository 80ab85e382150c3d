"""The command line of `tailmark replay`."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cli.replay import child
from cli.replay.slices import Span, as_archived, from_archive, from_topic
from cli.replay.target import Target
from cli.replay.times import RULE, shown, time_ms
from cli.run import flows
from flows.settings import load_settings
from sources.errors import FlowError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flows.settings import Settings

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2

_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")


class Source(StrEnum):
    """Where a slice is read from."""

    TOPIC = "topic"
    ARCHIVE = "archive"


class Output(StrEnum):
    """How the result is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a slice.

    Attributes:
        flow: The flow that heard it.
        from_ms: Its beginning.
        to_ms: Its end.
        events: How many events it had.
        written: Records in each topic of the replay.
    """

    flow: str
    from_ms: int
    to_ms: int
    events: int
    written: dict[str, int]


def replay(
    *,
    start: Annotated[str, typer.Option("--from", help=f"Beginning of the slice, in event time: {RULE}.")],
    end: Annotated[str, typer.Option("--to", help="Its end, exclusive.")] = "now",
    flow: Annotated[str, typer.Option(help="The flow that hears it: anomaly, bridge or archive.")] = "anomaly",
    source: Annotated[Source, typer.Option(help="Where the events are read from.")] = Source.TOPIC,
    prefix: Annotated[str, typer.Option(help="Before the name of every topic that is written.")] = "replay.",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete what an earlier replay wrote.")] = False,
    remote_write_url: Annotated[
        str, typer.Option(help="Where the bridge writes samples to.", show_default="nowhere")
    ] = "",
    output: Annotated[Output, typer.Option(help="For people, or for programs.")] = Output.TEXT,
) -> None:
    """Feed a slice of the past through a flow once more, into topics of its own.

    Events keep their order in each partition and their Kafka timestamps; what was late is left out again, so windows
    that lie in the slice as a whole count what they counted. Scores begin with no history. The flow has no recovery
    directory, a port of its own, and tells neither Prometheus nor Alertmanager. It writes to the topics of the settings
    with the prefix; the archive flow to the directory of the settings with it at the end.

    Exit codes: 0 replayed, 1 nothing in the slice, or it could not be read or heard, 2 bad settings or options.

    Example: tailmark replay --from 2026-11-23T09:00 --to 2026-11-23T10:30

    Example: tailmark replay --from 6h --to 2h --source archive --prefix incident-17. --output json
    """
    if flow not in flows():
        _refuse(f"there is no flow {flow!r}; the flows are {', '.join(flows())}")
    if _PREFIX.fullmatch(prefix) is None or not prefix.strip("._-"):
        _refuse(f"--prefix {prefix!r}: must be letters, digits, `.`, `_` or `-`, or live topics would be written to")
    span = _span(start, end)
    settings = load_settings()
    try:
        found = _replay(settings, span, flow, source, prefix, remote_write_url, overwrite=overwrite)
    except FlowError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_FAILURE) from None
    if output is Output.JSON:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    typer.echo(f"{found.events:,} events of {shown(span.from_ms)} to {shown(span.to_ms)} went through {flow}")
    for name, count in found.written.items():
        typer.echo(f"{count:>12,}  {name}")


def _replay(
    settings: Settings, span: Span, flow: str, source: Source, prefix: str, remote: str, *, overwrite: bool
) -> Replayed:
    """Copy the slice, let the flow hear it, and say what came of it."""
    target = Target(settings, prefix)
    _check_archive(settings, flow, prefix)
    live = settings.kafka.topics.events
    partitions = target.partitions(live)
    if source is Source.ARCHIVE and not partitions:
        raise OutputError(f"topic `{live}` does not exist, whose number of partitions the replay takes over")
    slices = from_topic if source is Source.TOPIC else from_archive
    made = False
    with _progress("read") as advance:
        for events in slices(settings, span, advance):
            if events and not made:
                target.make(partitions, overwrite=overwrite)
                made = True
            if events:
                target.write(events)
    if not made:
        raise OutputError(f"there is no event from {shown(span.from_ms)} to {shown(span.to_ms)} in the {source}")
    target.finish()
    _note_unpublished(settings, source)
    variables = child.environment(settings, os.environ, flow=flow, names=target.names, prefix=prefix, remote=remote)
    variables |= as_archived(settings) if source is Source.ARCHIVE else {}
    code = child.run(flow, variables)
    if code:
        raise OutputError(f"flow {flow} ended with exit code {code}; `{target.names['events']}` holds the slice")
    written = {target.names["events"]: target.written, **target.counts()}
    return Replayed(flow, span.from_ms, span.to_ms, target.written, written)


def _check_archive(settings: Settings, flow: str, prefix: str) -> None:
    path = Path(child.archive_path(settings, prefix))
    if flow == "archive" and path.exists():
        raise OutputError(
            f"{path} is there from an earlier replay; delete it and {path}.staging, or choose another --prefix"
        )


def _note_unpublished(settings: Settings, source: Source) -> None:
    staging = Path(f"{settings.archive.path.rstrip('/')}.staging")
    if source is Source.ARCHIVE and next(staging.glob("*/*.arrow"), None) is not None:
        note = "the latest events of the archive are not published yet and are left out; --source topic has them"
        typer.echo(note, err=True)


def _span(start: str, end: str) -> Span:
    now_ms = int(time.time() * 1000)
    try:
        span = Span(time_ms(start, now_ms), time_ms(end, now_ms))
    except ValueError as error:
        _refuse(str(error))
    if span.from_ms >= span.to_ms:
        _refuse(f"--from {start} must be before --to {end}, or the slice is empty")
    return span


def _refuse(why: str) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(EXIT_USAGE)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal, and nowhere else, how far it is."""
    columns = (BarColumn(), TextColumn(f"{{task.completed:,.0f}} of {{task.total:,.0f}} {what}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=0)
        yield lambda done, total: progress.update(task, completed=done, total=total)

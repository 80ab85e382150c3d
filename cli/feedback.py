"""`tailmark feedback`: say of an alert that it was no anomaly."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import msgspec
import typer

from cli.log_reader import LogReader, ours
from cli.replay.times import RULE, shown, time_ms
from flows.setting_sources import variable
from flows.settings import load_settings
from flows.suppression_settings import FEEDBACK_PATH, Word, append
from sources.errors import FlowError

if TYPE_CHECKING:
    from flows.settings import Settings

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2


class _Fired(msgspec.Struct):
    """What is needed of a record of the alerts topic."""

    fingerprint: str
    status: str
    labels: dict[str, str]
    starts_at_ms: int
    value: float | None
    expected: float | None


def feedback(
    fingerprint: Annotated[str, typer.Argument(help="Of the alert, as its records and `tailmark explain` have it.")],
    *,
    until: Annotated[str | None, typer.Option(help=f"Event time from which it holds no longer: {RULE}.")] = None,
    any_value: Annotated[
        bool, typer.Option("--any-value", help="Whatever the value, not only one that is no worse.")
    ] = False,
    note: Annotated[str, typer.Option(help="Why it was none, for those who read the file.")] = "",
) -> None:
    """Say of an alert that it was no anomaly: it, and what is no worse, opens no alert any more.

    The word goes to the file that `alerts.feedback_path` names. The flow reads it when it starts, as it does its
    settings: restart it to put the word into effect. Example: tailmark feedback 3f2a51c09e77d0b4 --note "load test"
    """
    settings = load_settings()
    path = settings.alerts.feedback_path
    if path is None:
        _fail(f"{variable(FEEDBACK_PATH)} must name a file, or nobody would read what you say", EXIT_USAGE)
    try:
        until_ms = None if until is None else time_ms(until, round(time.time() * 1_000))
        fired = _latest(settings, fingerprint)
    except ValueError as error:
        _fail(f"--until: {error}", EXIT_USAGE)
    except FlowError as error:
        _fail(str(error), EXIT_FAILURE)
    if fired is None:
        _fail(f"`{settings.kafka.topics.alerts}` has no alert {fingerprint!r} that fired", EXIT_FAILURE)
    labels = fired.labels
    word = Word(
        alertname=labels["alertname"],
        service=labels["service"],
        endpoint=labels["endpoint"],
        value=None if any_value else fired.value,
        expected=None if any_value else fired.expected,
        until_ms=until_ms,
        starts_at_ms=fired.starts_at_ms,
        note=note,
    )
    try:
        append(Path(path), word)
    except OSError as error:
        _fail(f"{path} can't be written: {error}", EXIT_FAILURE)
    name = f"{word.alertname} of {word.service} {word.endpoint}".rstrip()
    typer.echo(f"{name} from {shown(fired.starts_at_ms)} was no anomaly: written to {path}; restart the flow")


def _latest(settings: Settings, fingerprint: str) -> _Fired | None:
    """Find the record with which an alert fired last."""
    wanted = fingerprint.encode()
    latest = None
    with closing(LogReader(settings.client(), settings.kafka.topics.alerts)) as reader:
        for _, records in reader.read():
            for fired in ours((record.value() for record in records if record.key() == wanted), _Fired):
                if fired.status == "firing" and (latest is None or fired.starts_at_ms > latest.starts_at_ms):
                    latest = fired
    return latest


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"tailmark: {message}", err=True)
    raise typer.Exit(code)

"""`tailmark explain`: why a series fired, or why it did not."""

from __future__ import annotations

import importlib.util
import json
import re
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import polars as pl
import typer

from cli.explain_account import account_of
from cli.explain_read import NothingToReadError, read
from cli.explain_series import NothingToExplainError, choose, services_meant
from cli.explain_text import as_data, lines
from flows.alert_settings import policy_of
from flows.detection_settings import scoring_of
from flows.settings import load_settings
from local.demo.matching import Alert

if TYPE_CHECKING:
    from cli.explain_account import Account

EXIT_NOTHING: Final = 1
EXIT_USAGE: Final = 2

_PLOTS: Final = (".html", ".svg", ".png")
_PLOTTED_MS: Final = 10_800_000
"""How much of the series is drawn: three hours up to the window."""

_UNIT_MS: Final = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Output(StrEnum):
    """How an account is written."""

    TEXT = "text"
    JSON = "json"


def explain(
    series: Annotated[str, typer.Argument(help="`checkout|/pay`, `checkout/pay`, 'checkout /pay', or a service.")],
    *,
    at: Annotated[str | None, typer.Option(help="Event time: ISO 8601 (UTC without a zone) or ms. The newest.")] = None,
    history: Annotated[str, typer.Option(help="How far back to read, such as 90m, 24h or 7d.")] = "24h",
    output: Annotated[Output, typer.Option(help="For people, or for programs.")] = Output.TEXT,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the windows before, with their bands, to FILE: .html, .svg or .png.")
    ] = None,
) -> None:
    """Tell why a series fired, or why it did not, from its recorded windows.

    The windows are looked at again by the detector and the policy of the flow, with the settings in effect here:
    inputs, channels, gates, bands, warm-up, what opens an alert, and silence, in the words of the alert itself.

    Exit codes: 0 explained, 1 no such series or no window of that time, or Kafka does not answer, 2 bad settings or
    options.

    Example: tailmark explain checkout/pay --at 2026-03-02T10:15 --plot pay.html
    """
    settings = load_settings()
    scoring, policy = scoring_of(settings), policy_of(settings)
    at_ms = None if at is None else _time_ms(at)
    latest_ms = int(time.time() * 1000) if at_ms is None else at_ms
    if plot is not None:
        _check_plot(plot)
    try:
        recorded = read(settings, services_meant(series), from_ms=max(latest_ms - _span_ms(history), 0))
        chosen = choose(series, recorded.windows, recorded.others)
        account = account_of(recorded, chosen, at_ms=at_ms, scoring=scoring, policy=policy)
    except (NothingToReadError, NothingToExplainError) as error:
        _fail(str(error), EXIT_NOTHING)
    if plot is not None:
        _draw(recorded.windows, account, plot)
    if output is Output.JSON:
        typer.echo(json.dumps(as_data(account), indent=2))
    else:
        typer.echo("\n".join(lines(account)))


def _time_ms(text: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        _fail(
            f"`--at` must be ISO 8601 or milliseconds since 1970, or no window can be found; got {text!r}", EXIT_USAGE
        )
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _span_ms(text: str) -> int:
    found = re.fullmatch(r"(\d+)([mhd])", text.strip())
    if found is None or not int(found[1]):
        _fail(f"`--history` must be a number with m, h or d, or nothing can be read; got {text!r}", EXIT_USAGE)
    return int(found[1]) * _UNIT_MS[found[2]]


def _check_plot(path: Path) -> None:
    """Refuse before anything is read what could not be drawn after it."""
    if importlib.util.find_spec("altair") is None or importlib.util.find_spec("vl_convert") is None:
        _fail("`--plot` needs the extra `notebooks`: pip install 'tailmark[notebooks]'", EXIT_USAGE)
    if path.suffix not in _PLOTS:
        _fail(f"`--plot` must end with one of {', '.join(_PLOTS)}, or its form is not known; got {path}", EXIT_USAGE)


def _draw(windows: pl.DataFrame, account: Account, path: Path) -> None:
    from evaluation import plot  # noqa: PLC0415 - it needs an extra

    told = account.explanation
    own = windows.filter(
        (pl.col("service") == told.service)
        & (pl.col("endpoint") == told.endpoint)
        & (pl.col("window_end_ms") > told.window_end_ms - _PLOTTED_MS)
        & (pl.col("window_end_ms") <= told.window_end_ms)
    )
    try:
        plot.save(plot.series_chart(own, alerts=[Alert.of(*one) for one in account.episodes]), path)
    except OSError as error:
        _fail(f"`--plot` can't be written: {error}", EXIT_NOTHING)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"tailmark: {message}", err=True)
    raise typer.Exit(code)

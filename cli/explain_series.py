"""Which series a person means by what was typed."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

SUGGESTIONS: Final = 3

Series = tuple[str, str]
"""Service and endpoint."""


class NothingToExplainError(LookupError):
    """There is no such series or no such window; one line that says so."""


def services_meant(name: str) -> list[str]:
    """List the services that a name may begin with: what stands before `|`, a space, or a slash, and all of it."""
    ends = [place for place in range(len(name)) if name[place] in "| /"]
    return list(dict.fromkeys(name[:end] for end in [*ends, len(name)] if end))


def choose(name: str, windows: pl.DataFrame, others: Iterable[bytes]) -> Series:
    """Find the series that a person means.

    Args:
        name: `service|endpoint` as the key of the topic, `service endpoint` as an alert says it, `service/endpoint`, or
            a service alone when it has one endpoint.
        windows: Windows of the services that it may begin with.
        others: Keys of other series.

    Returns:
        Service and endpoint.

    Raises:
        NothingToExplainError: There is none, or more than one.
    """
    known: list[Series] = sorted(windows.select("service", "endpoint").unique().iter_rows())
    exact = [series for series in known if "|".join(series) == name]
    meant = exact or [series for series in known if name in spellings(series)]
    if not meant:
        meant = [series for series in known if series[0] == name]
    if len(meant) == 1:
        return meant[0]
    if meant:
        names = ", ".join(f"'{'|'.join(series)}'" for series in meant)
        raise NothingToExplainError(f"{name!r} may be any of {names}; name one of them")
    keys = ["|".join(series) for series in known] + sorted(key.decode(errors="replace") for key in others)
    near = get_close_matches(name.replace(" ", "|", 1), keys, SUGGESTIONS, 0.5) or keys[:SUGGESTIONS]
    hint = f"; near to it: {', '.join(map(repr, near))}" if near else ": the topic has no windows of that time"
    raise NothingToExplainError(f"no series is called {name!r}{hint}")


def spellings(series: Series) -> set[str]:
    """List the ways in which a series may be typed."""
    service, endpoint = series
    glued = endpoint if endpoint.startswith("/") else f"/{endpoint}"
    return {f"{service}|{endpoint}", f"{service} {endpoint}", f"{service}{glued}"} if endpoint else {service}

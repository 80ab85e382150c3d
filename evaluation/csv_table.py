"""CSV files as people have them: with or without a header, any usual delimiter, odd spelling, gaps in the rows."""

from __future__ import annotations

import csv
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_DELIMITERS: Final = ",;\t|"
_UNKNOWN: Final = frozenset({"", "nan", "null", "none", "na", "n/a", "-", "nil"})
_LARGEST_S: Final = 1e11
"""Seconds after the year 5000: a larger number of them is taken for milliseconds, or for what is smaller yet."""

_SMALLER_UNITS: Final = (1e3, 1e6, 1e9)


def table_of(lines: Iterable[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table of texts.

    Args:
        lines: Lines of a file.

    Returns:
        Names of the columns in lower case, and the rows by them; cells that a row lacks are empty. A file without a
        header, whose first line holds a time and a number, has the columns `timestamp` and `value`. Empty lines are no
        rows. A file without a line has no columns.
    """
    kept = [line for line in lines if line.strip()]
    if not kept:
        return [], []
    delimiter = max(_DELIMITERS, key=kept[0].count)
    cells = list(csv.reader(kept, delimiter=delimiter, skipinitialspace=True))
    names = [name.strip().lower() for name in cells[0]]
    if _is_row(names):
        names = ["timestamp", "value"]
    else:
        cells = cells[1:]
    padded = [row + [""] * (len(names) - len(row)) for row in cells]
    return names, [dict(zip(names, (cell.strip() for cell in row), strict=False)) for row in padded]


def seconds(text: str) -> float:
    """Read a timestamp: seconds since the epoch, or milli-, micro- or nanoseconds, or ISO 8601, UTC without a zone.

    Raises:
        ValueError: It is none of these.
    """
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(number):
        msg = f"{text!r} is no time"
        raise ValueError(msg)
    if abs(number) < _LARGEST_S:
        return number
    return next((number / unit for unit in _SMALLER_UNITS if abs(number / unit) < _LARGEST_S), number)


def number(text: str) -> float:
    """Read a value; NaN for what stands for an unknown one.

    Raises:
        ValueError: It is neither.
    """
    return math.nan if text.lower() in _UNKNOWN else float(text)


def _is_row(cells: list[str]) -> bool:
    """Tell whether the first line is no header but a row already."""
    if len(cells) < 2:  # noqa: PLR2004 - a time and a value
        return False
    try:
        seconds(cells[0])
        number(cells[1])
    except ValueError:
        return False
    return True

"""Figures beside their targets, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MIN_WIDTH: Final = 120
"""Columns of the table where the output is no terminal."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        part: The part of the benchmark that measured it.
        name: What was measured.
        value: The number, in `unit`.
        unit: Its unit; `x` is a ratio of two things measured side by side.
        target: What it must not exceed; None for what is only reported.
        note: How it came about.
    """

    part: str
    name: str
    value: float
    unit: str
    target: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Say whether the target is met; empty where there is none."""
        if self.target is None:
            return ""
        return "met" if self.value <= self.target else "missed"


def median(values: Sequence[float]) -> float:
    """Give the median of at least one value."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> str:
    """Say how far repetitions lie apart."""
    return f"{min(values):.2f} to {max(values):.2f} in {len(values)} runs"


def table_of(title: str, figures: Sequence[Figure]) -> Table:
    """Lay figures out; `figures` may be empty."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("figure", overflow="fold")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("how", overflow="fold", style="dim")
    for figure in figures:
        target = "" if figure.target is None else f"<= {shown(figure.target, figure.unit)}"
        style = {"met": "green", "missed": "bold red"}.get(figure.verdict, "")
        verdict = f"[{style}]{figure.verdict}[/]" if style else figure.verdict
        table.add_row(figure.name, shown(figure.value, figure.unit), target, verdict, figure.note)
    return table


def shown(value: float, unit: str) -> str:
    """Write a number with its unit, with as many digits as mean something."""
    if unit == "%":
        return f"{value:.1f}%"
    digits = 2 if abs(value) < 100 else 0  # noqa: PLR2004 - three digits that count
    return f"{value:,.{digits}f}{'' if unit == 'x' else ' '}{unit}"


def print_figures(title: str, figures: Sequence[Figure]) -> None:
    """Print a table."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(MIN_WIDTH, console.width))
    console.print(table_of(title, figures))


def write_json(path: Path, figures: Sequence[Figure]) -> None:
    """Write all figures as a JSON array of objects."""
    rows = [{**asdict(figure), "verdict": figure.verdict or None} for figure in figures]
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

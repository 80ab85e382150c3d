"""A picture of the live view, as the README has one."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.terminal_theme import MONOKAI

from local.demo.errors import DemoError

if TYPE_CHECKING:
    from pathlib import Path

    from local.demo.view import LiveView

WIDTH: Final = 100
HEIGHT: Final = 30

_WEB_FONTS: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_FONTS: Final = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def draw(view: LiveView, file: Path) -> None:
    """Draw a view as a terminal shows it.

    Args:
        view: What is on the screen.
        file: Where to; an SVG that loads nothing.

    Raises:
        DemoError: It can't be written.
    """
    console = Console(record=True, file=io.StringIO(), width=WIDTH, height=HEIGHT, force_terminal=True, highlight=False)
    console.print(view)
    drawn = _WEB_FONTS.sub("", console.export_svg(title="make demo", theme=MONOKAI))
    try:
        file.write_text(drawn.replace("Fira Code, monospace", _FONTS), encoding="utf-8")
    except OSError as error:
        raise DemoError(f"`--picture` can't be written: {error}") from error

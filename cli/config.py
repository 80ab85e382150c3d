"""`tailmark config`: the settings as the flows would see them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from flows.masking import masked
from flows.setting_sources import settings_of
from flows.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(help="Settings: what is in effect.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `show` a subcommand: typer would run a lone command in place of its group."""


@app.command()
def show() -> None:
    """Print the settings in effect as TOML, secrets masked.

    The output is a file for TAILMARK_CONFIG, but for the secrets. Example: tailmark config show > tailmark.toml
    """
    for line in toml_lines(load_settings()):
        typer.echo(line)


def toml_lines(settings: Settings) -> Iterator[str]:
    """Write settings as a TOML document.

    Args:
        settings: What to write.

    Yields:
        Lines without a line end. A setting that is not set is a comment; a secret is `***`.
    """
    groups: dict[str, list[str]] = {}
    for setting in settings_of(type(settings)):
        value: Any = settings
        for name in setting.path:
            value = getattr(value, name)
        *group, key = setting.path
        value = masked(key, value)
        if isinstance(value, dict):
            groups[".".join(setting.path)] = [f"{_toml(name)} = {_toml(text)}" for name, text in sorted(value.items())]
        else:
            line = f"# {key} is not set" if value is None else f"{key} = {_toml(value)}"
            groups.setdefault(".".join(group), []).append(line)
    for number, (name, lines) in enumerate((name, lines) for name, lines in groups.items() if lines):
        yield from ([""] if number else [])
        yield f"[{name}]"
        yield from lines


def _toml(value: object) -> str:
    """Write a scalar or an array; JSON's forms of these are TOML's, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

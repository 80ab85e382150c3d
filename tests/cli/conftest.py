"""The command line, run in this process."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TypeAlias

import pytest

from cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

Command: TypeAlias = "Callable[..., tuple[int, str, str]]"
"""Takes variables and arguments, and gives the exit code and what was written to stdout and stderr."""


@pytest.fixture
def tailmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A function that runs `tailmark` with settings of its own alone."""
    return command_line(monkeypatch, capsys)


def command_line(monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> Command:
    """Make such a function; `capture` decides whether what children write counts."""
    for key in [key for key in os.environ if key.startswith(("TAILMARK_", "KAFKA_"))]:
        monkeypatch.delenv(key)

    def run(env: dict[str, str], *arguments: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["tailmark", *arguments])
            for key, value in env.items():
                patch.setenv(key, value)
            with pytest.raises(SystemExit) as ended:
                main()
        said = capture.readouterr()
        return int(str(ended.value.code or 0)), said.out, said.err

    return run

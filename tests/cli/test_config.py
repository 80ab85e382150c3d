"""`tailmark config show` and the ways in which the command line answers mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.config import toml_lines
from flows.settings import ArchiveSettings, Settings, load_settings

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2"


def tailmark(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("TAILMARK_", "KAFKA_"))}
    return subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", *arguments],
        env=clean | {"COLUMNS": "200", "NO_COLOR": "1"} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def document(settings: Settings) -> dict[str, Any]:
    return tomllib.loads("\n".join(toml_lines(settings)))


def test_version_is_printed() -> None:
    result = tailmark("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("tailmark 0.")


def test_effective_settings_are_printed_as_toml() -> None:
    result = tailmark("config", "show", TAILMARK_WINDOW__SLIDE_MS="5000", KAFKA_BOOTSTRAP_SERVERS="a:1")
    assert result.returncode == 0
    shown = tomllib.loads(result.stdout)
    assert shown["window"]["slide_ms"] == 5000
    assert shown["kafka"]["bootstrap_servers"] == "a:1"
    assert shown["kafka"]["topics"]["events"] == "telemetry.events"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TAILMARK_WINDOW__SHARDS": "8", "TAILMARK_KAFKA__STOP_AT_END": "true", "TAILMARK_PROMETHEUS__PORT": "9000"},
        {"TAILMARK_KAFKA__OPTIONS__SECURITY_PROTOCOL": "ssl", "TAILMARK_EVENTS__FIELDS__LATENCY_MS": "request.took"},
        {"TAILMARK_ALERTMANAGER__URLS": "http://a:1,http://b:2", "TAILMARK_KAFKA__GROUP_ID": 'a "quoted" \\ name'},
    ],
)
def test_what_is_printed_can_be_read_back(tmp_path: Path, environ: dict[str, str]) -> None:
    settings = load_settings(environ)
    path = tmp_path / "tailmark.toml"
    path.write_text("\n".join(toml_lines(settings)))
    assert load_settings({"TAILMARK_CONFIG": str(path)}) == settings


@given(st.text(min_size=1))
def test_any_text_is_valid_toml(text: str) -> None:
    if not text.isprintable() and any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        return  # lone surrogates have no UTF-8 form, so no file and no terminal can hold them
    if "@" in text or "?" in text:
        return  # may hold what is masked
    assert document(Settings(archive=ArchiveSettings(path=text)))["archive"]["path"] == text


def test_printed_settings_hold_no_secret() -> None:
    result = tailmark(
        "config",
        "show",
        TAILMARK_KAFKA__OPTIONS__SASL_PASSWORD=SECRET,
        TAILMARK_PROMETHEUS__REMOTE_WRITE_URL=f"https://me:{SECRET}@tsdb/write",
    )
    assert result.returncode == 0
    assert SECRET not in result.stdout + result.stderr
    shown = tomllib.loads(result.stdout)
    assert shown["kafka"]["options"] == {"sasl.password": "***"}
    assert shown["prometheus"]["remote_write_url"] == "https://***@tsdb/write"


def test_impossible_setting_is_one_line_and_exit_code_2() -> None:
    result = tailmark("config", "show", TAILMARK_WINDOW__SLIDE_MS="7000")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "TAILMARK_WINDOW__SLIDE_MS=7000: must divide window.length_ms (60000), or panes would straddle windows\n"
    )


@pytest.mark.parametrize("arguments", [("nonsense",), ("config", "nonsense"), ("--nonsense",), ("config",), ()])
def test_mistake_on_the_command_line_exits_2_without_a_traceback(arguments: tuple[str, ...]) -> None:
    result = tailmark(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "Usage: tailmark" in result.stderr + result.stdout


@pytest.mark.parametrize("arguments", [(), ("config",), ("config", "show")])
def test_every_command_has_help(arguments: tuple[str, ...]) -> None:
    result = tailmark(*arguments, "--help")
    assert result.returncode == 0
    assert "Usage: tailmark" in result.stdout


def test_reader_that_goes_away_is_no_error() -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TAILMARK_")}
    command = f"{sys.executable} -c 'from cli.main import main; main()' config show | head -n 1"
    result = subprocess.run(["bash", "-c", command], env=clean, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "[kafka]\n"
    assert result.stderr == ""

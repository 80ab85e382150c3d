"""Maintenance and feedback: texts of settings and lines of a file, as the alerts are told them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from flows.setting_sources import SettingsError, variable
from operators.kernels.episodes import Harmless, Maintenance
from operators.kernels.episodes.wording import ALERTNAMES

if TYPE_CHECKING:
    from pathlib import Path

MAINTENANCE_RULE: Final = "`PATTERN START/END`, a pattern of `service|endpoint` and two times, ISO 8601 or milliseconds"

FEEDBACK_PATH: Final = ("alerts", "feedback_path")


class Word(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of the feedback file: an alert that was no anomaly.

    Attributes:
        alertname: Its name.
        service: Its service.
        endpoint: Its endpoint.
        value: What was measured when it opened; null excuses any value.
        expected: What was expected then.
        until_ms: Event time up to which the word holds; null for ever.
        starts_at_ms: When that alert began.
        note: Why it was none.
    """

    alertname: str
    service: str
    endpoint: str = ""
    value: float | None = None
    expected: float | None = None
    until_ms: int | None = None
    starts_at_ms: int | None = None
    note: str = ""


def maintenance(text: str) -> Maintenance:
    """Read one span of maintenance.

    Raises:
        ValueError: It is not such a text, or ends before it starts.
    """
    pattern, _, span = text.strip().rpartition(" ")
    start, slash, end = span.partition("/")
    if not pattern or not slash:
        raise ValueError(text)
    return Maintenance(pattern.strip(), _time_ms(start), _time_ms(end))


def feedback(path: Path) -> tuple[Harmless, ...]:
    """Read the feedback file; one that is not there yet says nothing.

    Raises:
        SettingsError: It can't be read, or has a line that is no word on an alert.
    """
    key = f"{variable(FEEDBACK_PATH)}={path}"
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{key}: can't be read: {error}") from None
    words = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            word = msgspec.json.decode(line, type=Word)
        except msgspec.MsgspecError as error:
            raise SettingsError(f"{key}: line {number} is no word on an alert: {error}") from None
        if word.alertname not in ALERTNAMES:
            raise SettingsError(
                f"{key}: line {number} must name one of {', '.join(ALERTNAMES)}; got {word.alertname!r}"
            )
        words.append(
            Harmless(word.alertname, word.service, word.endpoint, word.value, word.expected, until_ms=word.until_ms)
        )
    return tuple(words)


def append(path: Path, word: Word) -> None:
    """Write one more word behind the others; the file is made if it is not there.

    Raises:
        OSError: It can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(word) + b"\n")


def _time_ms(text: str) -> int:
    if text.isdecimal():
        return int(text)
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)

"""Times as a person types them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)")
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_EPOCH_MS: Final = re.compile(r"\d{12,16}")
_MS_PER_S: Final = 1000

RULE: Final = "ISO 8601 such as 2026-11-23T09:00 (UTC unless it says otherwise), how long ago such as 90m, or `now`"


def time_ms(text: str, now_ms: int) -> int:
    """Read a time.

    Args:
        text: See `RULE`; milliseconds since the epoch are understood as well.
        now_ms: The time now.

    Returns:
        Milliseconds since the epoch.

    Raises:
        ValueError: It is none; the message says what would be one.
    """
    text = text.strip()
    if text == "now":
        return now_ms
    if _EPOCH_MS.fullmatch(text):
        return int(text)
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_ms - round(float(ago[1]) * _UNIT_MS[ago[2]])
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; write {RULE}") from None
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return round(aware.timestamp() * _MS_PER_S)


def shown(stamp_ms: int) -> str:
    """Write a time for people, in UTC."""
    time = datetime.fromtimestamp(stamp_ms / _MS_PER_S, UTC)
    return time.isoformat(timespec="milliseconds" if stamp_ms % _MS_PER_S else "seconds").replace("+00:00", "Z")

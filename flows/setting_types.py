"""What a setting can be: the types of values, each with the rule that its error message quotes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from flows.masking import masked
from flows.setting_sources import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

YEAR_MS: Final = 366 * 24 * 3600 * 1000
"""Longest duration a setting can have, milliseconds: far from the overflow of any sum of two times."""

LAST_PORT: Final = 65535
_TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_ADDRESS: Final = re.compile(r"([A-Z_]+://)?(\[[0-9A-Fa-f:.]+\]|[^\s:/,\[\]@]+)(:(?P<port>\d{1,5}))?")


def broken(rule: str, **context: object) -> PydanticCustomError:
    """Build the error of a rule that types can't express.

    Args:
        rule: What the value must be, and the consequence.
        context: `key` below this setting, or `other`, the path of a setting to blame instead when the user gave only
            that one, with its `other_rule`.
    """
    return PydanticCustomError("rule", "{rule}", {"rule": rule, **context})


def _not_boolean(value: object) -> object:
    """Refuse `true` where a number is meant: Python would take it for 1."""
    if isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - pydantic catches this one
    return value


def _topic(value: str) -> str:
    if not _TOPIC_NAME.fullmatch(value) or value in {".", ".."}:
        raise ValueError
    return value


def servers(value: str) -> str:
    """Check `host:port,host:port`; a part without a port is 9092 to librdkafka."""
    for part in value.split(","):
        match = _ADDRESS.fullmatch(part.strip())
        if match is None or not 1 <= int(match["port"] or 1) <= LAST_PORT:
            raise ValueError
    return value


def _http_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in {"http", "https"} or not url.hostname or url.port == 0 or not value.isprintable():
        raise ValueError
    return value


def _key_path(value: str) -> str:
    if not all(value.split(".")):
        raise ValueError
    return value


def empty_is_unset(value: object) -> object:
    """Take an empty text for an absent one: it is what a compose file makes of a variable nobody set."""
    return None if value == "" else value


def listed(value: object) -> object:
    """Split the text of a variable: `a,b`, or a JSON array for those who know it from elsewhere."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def whole(low: int, high: int, what: str) -> tuple[Any, ...]:
    """Build the metadata of a whole number from `low` to `high`, both included."""
    rule = Rule(f"a whole number of {what} from {low} to {high}")
    return BeforeValidator(_not_boolean), Field(ge=low, le=high), rule


def decimal(low: float, high: float, what: str) -> tuple[Any, ...]:
    """Build the metadata of a number from `low` to `high`, both included."""
    rule = Rule(f"{what} from {low:g} to {high:g}")
    return BeforeValidator(_not_boolean), Field(ge=low, le=high, allow_inf_nan=False), rule


Duration = Annotated[int, *whole(1, YEAR_MS, "milliseconds")]
DurationOrZero = Annotated[int, *whole(0, YEAR_MS, "milliseconds")]
Port = Annotated[int, BeforeValidator(_not_boolean), Field(ge=1, le=LAST_PORT), Rule("a port from 1 to 65535")]
Switch = Annotated[bool, Rule("`true` or `false`")]
Text = Annotated[str, Field(min_length=1), Rule("a text of at least one character")]
Topic = Annotated[
    str, AfterValidator(_topic), Rule("a topic name: 1 to 249 letters, digits, `.`, `_` or `-`, not `.` or `..`")
]
URL_RULE: Final = Rule("a URL that starts with http:// or https:// and names a host")
URLS_RULE: Final = Rule("URLs that start with http:// or https:// and name a host, separated by commas")

Url = Annotated[str, AfterValidator(_http_url), URL_RULE]
KeyPath = Annotated[str, AfterValidator(_key_path), Rule("a JSON key, or a path of keys joined with dots")]


class Group(BaseModel):
    """A group of settings: frozen, closed to unknown keys, printed without secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield what `repr`, `str` and rich print, with secrets masked."""
        return [(name, masked(name, getattr(self, name))) for name in type(self).model_fields]

"""What of a setting may be printed: secrets leave as `***`, whatever they are printed by."""

from __future__ import annotations

import re
from typing import Any, Final

MASK: Final = "***"

_SHOWN_CHARACTERS: Final = 120
_SECRET_NAME: Final = re.compile(
    r"pas+w|pass|secret|token|credential|private|pem$|jaas|oauthbearer.config|api.?key", re.IGNORECASE
)
_HINT_OF_SECRET: Final = re.compile(r"sasl|ssl|auth|login|user|pw|key", re.IGNORECASE)
# The user part of a URL goes as a whole: a token often stands where the user name does, and an unescaped `/`, `:` or
# `@` inside of a password would defeat anything that looks for its borders.
_USER_PART: Final = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)?.*@", re.DOTALL)
_SECRET_PARAMETER: Final = re.compile(r"([?&][^=&#]*(?:pass|secret|token|key|sig)[^=&#]*=)[^&#]*", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Tell whether a setting of this name holds a secret.

    Args:
        name: A key in any spelling: `sasl.password`, `TAILMARK_KAFKA__OPTIONS__SASL_PASSWORD`.

    Returns:
        True when its value must never be printed.
    """
    return _SECRET_NAME.search(name) is not None


def may_be_secret(name: str) -> bool:
    """Tell whether a key that no setting has could be a misspelled one of a secret."""
    return is_secret(name) or _HINT_OF_SECRET.search(name) is not None


def mask_urls(text: str) -> str:
    """Take user names, passwords and tokens out of one URL or a comma-separated list of them.

    Args:
        text: Any text; what holds neither `@` nor a query comes back unchanged.

    Returns:
        The text with `***` in place of each user part and of each query parameter named after a secret.
    """
    if "@" not in text and "?" not in text:
        return text
    # A comma may be part of a password: everything up to the last `@` of the text is then one user part.
    parts = text.split(",")
    if any("@" in part and "://" not in part for part in parts):
        parts = [text]
    return ",".join(_SECRET_PARAMETER.sub(rf"\g<1>{MASK}", _USER_PART.sub(_masked_user, part)) for part in parts)


def shown(name: str, value: object) -> str:
    """Make the form of a value that may stand in a message: one line, of bounded length, without secrets.

    Args:
        name: The key that the value belongs to; a secret one hides the value altogether.
        value: A scalar, a sequence or a mapping.

    Returns:
        At most 120 printable characters.
    """
    if is_secret(name):
        return MASK
    text = mask_urls(value) if isinstance(value, str) else _plain(masked(name, value))
    if not text.isprintable():
        text = repr(text)[1:-1]
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def masked(name: str, value: Any) -> Any:  # noqa: ANN401 - any value of a setting, its shape is kept
    """Replace the secrets inside of a value, keeping its shape.

    Args:
        name: The key that the value belongs to.
        value: A scalar, a sequence or a mapping.

    Returns:
        The same scalars, tuples and dicts with `***` for secrets.
    """
    if isinstance(value, dict):
        return {key: masked(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(masked(name, item) for item in value)
    if is_secret(name) and value is not None:
        return MASK
    return mask_urls(value) if isinstance(value, str) else value


def _plain(value: object) -> str:
    """Write booleans as a user types them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _masked_user(match: re.Match[str]) -> str:
    return f"{match['scheme'] or ''}{MASK}@"

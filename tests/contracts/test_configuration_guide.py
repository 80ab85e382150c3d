"""The table of settings in the guide says what the models say, in the same order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flows.client_options import RESERVED_OPTIONS
from flows.setting_sources import CONFIG_KEY, SYNONYMS, settings_of, variable
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.setting_sources import Setting

GUIDE: Final = Path(__file__).resolve().parents[2] / "docs" / "guide" / "configuration.md"


def row(setting: Setting) -> str:
    """Write the line that a setting has in the guide."""
    value = setting.default
    if value is None or value in ((), {}):
        default = "unset"
    else:
        default = f"`{str(value).lower() if isinstance(value, bool) else value}`"
    name = variable(setting.path).removeprefix("TAILMARK_") + ("__<KEY>" if setting.is_table else "")
    return f"| `{name}` | {default} | {setting.rule} | {setting.field.description} |"


def test_guide_has_a_row_for_every_setting_and_no_other() -> None:
    rows = [line for line in GUIDE.read_text().splitlines() if re.match(r"\| `[A-Z_<>]+` \|", line)]
    assert rows == [row(setting) for setting in settings_of(Settings)]


def test_guide_names_what_is_read_without_being_a_setting() -> None:
    text = GUIDE.read_text()
    assert CONFIG_KEY in text
    assert all(name in text for name in SYNONYMS)


def test_guide_names_every_option_that_can_not_be_set() -> None:
    text = GUIDE.read_text()
    assert [option for option in RESERVED_OPTIONS if f"`{option}`" not in text] == []

"""Settings of remote write."""

from __future__ import annotations

import pytest

from flows.bridge_settings import RESERVED_HEADERS
from flows.settings import SettingsError, load_settings

HEADERS = "TAILMARK_PROMETHEUS__REMOTE_WRITE_HEADERS__"


def test_headers_are_spelled_with_hyphens() -> None:
    told = load_settings({f"{HEADERS}X_SCOPE_ORGID": "team"}).prometheus
    assert told.remote_write_headers == {"x-scope-orgid": "team"}


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
def test_header_of_the_protocol_is_not_a_setting(name: str) -> None:
    with pytest.raises(SettingsError, match="is set by remote write itself"):
        load_settings({HEADERS + name.upper().replace("-", "_"): "x"})


def test_header_with_a_line_break_is_refused() -> None:
    with pytest.raises(SettingsError, match="printable value"):
        load_settings({f"{HEADERS}X_A": "b\r\nX-Evil: 1"})


def test_token_is_not_printed() -> None:
    told = load_settings({"TAILMARK_PROMETHEUS__REMOTE_WRITE_BEARER_TOKEN": "hush"})
    assert "hush" not in repr(told)

"""Settings of remote write, by which the bridge brings samples to Prometheus."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from flows.setting_sources import Rule
from flows.setting_types import (
    URL_RULE,
    Duration,
    Group,
    Switch,
    Text,
    Url,
    broken,
    empty_is_unset,
    whole,
)

RESERVED_HEADERS: Final = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
        "x-prometheus-remote-write-version",
    }
)
"""Headers that remote write sets itself; who may write is said by a token, or in the URL."""

MAX_SAMPLES: Final = 1_000_000
MAX_WAITING_SAMPLES: Final = 100_000_000
MAX_PAUSE_MS: Final = 3_600_000
_HEADER: Final = re.compile(r"[a-z0-9-]{1,64}")

_Duration = Annotated[
    Duration | None, BeforeValidator(empty_is_unset), Rule("a whole number of milliseconds from 1 to 31622400000")
]


class RemoteWriteSettings(Group):
    """How the bridge writes samples to a receiver. The defaults are Prometheus's own."""

    remote_write_url: Annotated[
        Url | None,
        BeforeValidator(empty_is_unset),
        URL_RULE,
    ] = Field(
        default=None,
        description="Where the bridge writes samples to. A user part is sent as basic authentication. Unset: off.",
    )
    remote_write_version: Annotated[
        Literal["1.0", "2.0"] | None, BeforeValidator(empty_is_unset), Rule("1.0 or 2.0")
    ] = Field(
        default=None,
        description="Version of the protocol. Unset: 2.0, and 1.0 once a receiver turns out not to take it.",
    )
    remote_write_native: Switch = Field(
        default=True, description="Write native histograms beside the classic ones. Off for receivers without them."
    )
    remote_write_max_samples: Annotated[int, *whole(1, MAX_SAMPLES, "samples")] = Field(
        default=2_000, description="About how many samples a request has at most."
    )
    remote_write_waiting_samples: Annotated[int, *whole(1, MAX_WAITING_SAMPLES, "samples")] = Field(
        default=100_000,
        description="How many samples may wait in each of four senders before the flow stops reading.",
    )
    remote_write_timeout_ms: Annotated[int, *whole(1, MAX_PAUSE_MS, "milliseconds")] = Field(
        default=5_000, description="How long a request may take before it is tried again."
    )
    remote_write_max_pause_ms: Annotated[int, *whole(1, MAX_PAUSE_MS, "milliseconds")] = Field(
        default=5_000, description="Longest pause between two tries; the first is 30 ms, and each twice the last."
    )
    remote_write_max_age_ms: _Duration = Field(
        default=None, description="Older samples are counted as `too_old` and not sent. Unset: the receiver decides."
    )
    remote_write_bearer_token: Annotated[
        Text | None, BeforeValidator(empty_is_unset), Rule("a text of at least one character")
    ] = Field(default=None, description="Sent as `Authorization: Bearer`, unless the URL names a user.")
    remote_write_headers: Annotated[
        dict[str, str], Rule("a header and its value; none that remote write itself sets")
    ] = Field(default_factory=dict, description="Further headers of every request, `_` for `-`: `…__X_SCOPE_ORGID`.")

    @field_validator("remote_write_headers", mode="before")
    @classmethod
    def _spelled(cls, value: object) -> object:
        """Spell headers with `-`, as variables can't."""
        if not isinstance(value, dict):
            return value
        return {str(name).lower().replace("_", "-"): text for name, text in value.items()}

    @field_validator("remote_write_headers")
    @classmethod
    def _allowed(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name in RESERVED_HEADERS:
                raise broken("is set by remote write itself, and can't be another", key=name)
            if not _HEADER.fullmatch(name) or not text.isprintable() or not text.isascii():
                raise broken("must be a header of letters, digits and `-` with a printable value", key=name)
        return value

"""Settings of what leaves the flows by other ways than Kafka: Parquet, Prometheus, Alertmanager."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from flows.bridge_settings import RemoteWriteSettings
from flows.setting_sources import Rule, SettingsError
from flows.setting_types import (
    LAST_PORT,
    URLS_RULE,
    Duration,
    Group,
    Port,
    Text,
    Url,
    empty_is_unset,
    listed,
    whole,
)

MIN_RESEND_MS: Final = 1_000
MAX_RESEND_MS: Final = 3_600_000

MAX_PUBLISH_ROWS: Final = 100_000_000
_FLOW_PORTS: Final = {"anomaly": 8000, "bridge": 8001, "archive": 8002}
_PORTS_BETWEEN_PROCESSES: Final = 10


class ArchiveSettings(Group):
    """The Parquet archive."""

    path: Text = Field(
        default="archive",
        description="Directory of the dataset. What is not published yet is beside it, in `<path>.staging`.",
    )
    publish_every_ms: Duration = Field(
        default=600_000, description="How long rows may wait until readers see them. Longer makes fewer, larger files."
    )
    publish_rows: Annotated[int, *whole(1, MAX_PUBLISH_ROWS, "rows")] = Field(
        default=1_000_000, description="How many rows of a topic partition may wait; then they are published at once."
    )


class PrometheusSettings(RemoteWriteSettings):
    """The page to scrape, and remote write."""

    host: Text = Field(default="127.0.0.1", description="Address that the page listens on.")
    port: Annotated[Port | None, BeforeValidator(empty_is_unset), Rule("a port from 1 to 65535")] = Field(
        default=None,
        description="Port of process 0; process i adds 10 * i. Unset: 8000 for anomaly, 8001 bridge, 8002 archive.",
    )

    def port_for(self, flow: str, process: int) -> int:
        """Choose the port of the page of one process.

        Args:
            flow: Name of the flow: `anomaly`, `bridge`, `archive`.
            process: Number of the process in its cluster, from 0.

        Returns:
            A port from 1 to 65535.

        Raises:
            SettingsError: The cluster has more processes than there are ports after the first.
        """
        first = self.port or _FLOW_PORTS[flow]
        port = first + _PORTS_BETWEEN_PROCESSES * process
        if port > LAST_PORT:
            msg = (
                f"TAILMARK_PROMETHEUS__PORT={first}: leaves no port for process {process}, "
                f"which would listen on {port}; the last port is {LAST_PORT}"
            )
            raise SettingsError(msg)
        return port


class AlertmanagerSettings(Group):
    """Where alerts are sent."""

    urls: Annotated[
        tuple[Url, ...],
        BeforeValidator(listed),
        URLS_RULE,
    ] = Field(
        default=(),
        description="Every replica, separated by commas: each gets every alert. A user part is sent as basic "
        "authentication. Unset: off.",
    )
    bearer_token: Annotated[Text | None, BeforeValidator(empty_is_unset), Rule("a text of at least one character")] = (
        Field(
            default=None, description="Sent to every replica as `Authorization: Bearer`, unless its URL names a user."
        )
    )
    resend_ms: Annotated[int, *whole(MIN_RESEND_MS, MAX_RESEND_MS, "milliseconds")] = Field(
        default=60_000,
        description="How often open alerts are sent again. A flow that is gone for four times as long lets them end.",
    )
    timeout_ms: Annotated[int, *whole(1, MAX_RESEND_MS, "milliseconds")] = Field(
        default=10_000, description="How long one request may take."
    )
    max_age_ms: Duration = Field(
        default=300_000,
        description="An alert whose window ended longer ago waits until the flow has caught up, and is sent if it is "
        "still open then.",
    )

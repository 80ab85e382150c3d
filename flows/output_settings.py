"""Settings of what leaves the flows by other ways than Kafka: Parquet, Prometheus, Alertmanager."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from flows.setting_sources import Rule, SettingsError
from flows.setting_types import LAST_PORT, URL_RULE, URLS_RULE, Group, Port, Text, Url, empty_is_unset, listed

_FLOW_PORTS: Final = {"anomaly": 8000, "bridge": 8001, "archive": 8002}
_PORTS_BETWEEN_PROCESSES: Final = 10


class ArchiveSettings(Group):
    """The Parquet archive."""

    path: Text = Field(default="archive", description="Directory of the dataset.")


class PrometheusSettings(Group):
    """The page to scrape, and remote write."""

    host: Text = Field(default="127.0.0.1", description="Address that the page listens on.")
    port: Annotated[Port | None, BeforeValidator(empty_is_unset), Rule("a port from 1 to 65535")] = Field(
        default=None,
        description="Port of process 0; process i adds 10 * i. Unset: 8000 for anomaly, 8001 bridge, 8002 archive.",
    )
    remote_write_url: Annotated[
        Url | None,
        BeforeValidator(empty_is_unset),
        URL_RULE,
    ] = Field(default=None, description="Where the bridge writes samples to. Unset: off.")

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
    ] = Field(default=(), description="Every replica, separated by commas: each gets every alert. Unset: off.")

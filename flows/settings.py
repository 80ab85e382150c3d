"""All settings of the flows: one validated, frozen object from the environment and a TOML file.

This is the only module that reads the environment. A program calls `load_settings` once, before it reads anything
else, and hands the `Settings` down; nothing below the flows knows where a value came from. `Settings()` is the
defaults, whatever the environment says.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.client_options import ClientOptions, flat_options, refused_option
from flows.masking import masked
from flows.setting_sources import Rule, SettingsError, read_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import ValidationInfo
    from pydantic_settings import PydanticBaseSettingsSource

__all__ = ["ClientOptions", "Settings", "SettingsError", "load_settings"]

YEAR_MS: Final = 366 * 24 * 3600 * 1000
"""Longest duration a setting can have, milliseconds: far from the overflow of any sum of two times."""

MAX_VALUE_BYTES: Final = 1_000_000_000
"""Largest `events.max_bytes`: the most that librdkafka fetches at once."""

MAX_SOURCE_SHARDS: Final = 256
MAX_SHARDS: Final = 4096
MAX_SERIES: Final = 10_000_000

EVENT_FIELDS: Final = (
    "timestamp_ms", "service", "latency_ms", "endpoint", "status", "event_id", "trace_id", "heartbeat"
)  # fmt: skip
"""Names under `events.fields`: the fields of an event that a producer may call otherwise."""

_FLOW_PORTS: Final = {"anomaly": 8000, "bridge": 8001, "archive": 8002}
_PORTS_BETWEEN_PROCESSES: Final = 10
_LAST_PORT: Final = 65535
_TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_ADDRESS: Final = re.compile(r"([A-Z_]+://)?(\[[0-9A-Fa-f:.]+\]|[^\s:/,\[\]@]+)(:(?P<port>\d{1,5}))?")


def _broken(rule: str, **context: object) -> PydanticCustomError:
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


def _servers(value: str) -> str:
    """Check `host:port,host:port`; a part without a port is 9092 to librdkafka."""
    for part in value.split(","):
        match = _ADDRESS.fullmatch(part.strip())
        if match is None or not 1 <= int(match["port"] or 1) <= _LAST_PORT:
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


def _empty_is_unset(value: object) -> object:
    """Take an empty text for an absent one: it is what a compose file makes of a variable nobody set."""
    return None if value == "" else value


def _listed(value: object) -> object:
    """Split the text of a variable: `a,b`, or a JSON array for those who know it from elsewhere."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _whole(low: int, high: int, what: str) -> tuple[Any, ...]:
    """Build the metadata of a whole number from `low` to `high`, both included."""
    rule = Rule(f"a whole number of {what} from {low} to {high}")
    return BeforeValidator(_not_boolean), Field(ge=low, le=high), rule


_Duration = Annotated[int, *_whole(1, YEAR_MS, "milliseconds")]
_DurationOrZero = Annotated[int, *_whole(0, YEAR_MS, "milliseconds")]
_Port = Annotated[int, BeforeValidator(_not_boolean), Field(ge=1, le=_LAST_PORT), Rule("a port from 1 to 65535")]
_Switch = Annotated[bool, Rule("`true` or `false`")]
_Text = Annotated[str, Field(min_length=1), Rule("a text of at least one character")]
_Topic = Annotated[
    str, AfterValidator(_topic), Rule("a topic name: 1 to 249 letters, digits, `.`, `_` or `-`, not `.` or `..`")
]
_URL_RULE: Final = Rule("a URL that starts with http:// or https:// and names a host")
_URLS_RULE: Final = Rule("URLs that start with http:// or https:// and name a host, separated by commas")

_Url = Annotated[str, AfterValidator(_http_url), _URL_RULE]
_KeyPath = Annotated[str, AfterValidator(_key_path), Rule("a JSON key, or a path of keys joined with dots")]


class _Group(BaseModel):
    """A group of settings: frozen, closed to unknown keys, printed without secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield what `repr`, `str` and rich print, with secrets masked."""
        return [(name, masked(name, getattr(self, name))) for name in type(self).model_fields]


class TopicSettings(_Group):
    """Names of the topics."""

    events: _Topic = Field(default="telemetry.events", description="Where every flow reads events from.")
    windows: _Topic = Field(
        default="telemetry.windows", description="Closed and scored windows, written by `flows.anomaly`."
    )
    alerts: _Topic = Field(default="telemetry.alerts", description="Alert transitions, written by `flows.anomaly`.")
    alerts_state: _Topic = Field(
        default="telemetry.alerts.state", description="Latest transition of each alert, compacted."
    )
    dead_letter: _Topic = Field(
        default="telemetry.dead-letter", description="Rejected messages, their bytes unchanged."
    )
    truth: _Topic = Field(default="telemetry.truth", description="Labelled incidents, written by the simulator.")

    @field_validator("*")
    @classmethod
    def _differ(cls, value: str, info: ValidationInfo) -> str:
        for other, name in info.data.items():
            if name == value:
                consequence = "or a flow would read what it writes"
                raise _broken(
                    f"must differ from kafka.topics.{other}, {consequence}",
                    other=("kafka", "topics", other),
                    other_rule=f"must differ from kafka.topics.{info.field_name}, {consequence}",
                )
        return value


class KafkaSettings(_Group):
    """Where the log is, and how to talk to it."""

    bootstrap_servers: Annotated[
        str, AfterValidator(_servers), Rule("`host:port`, or several of them separated by commas")
    ] = Field(
        default="localhost:9092", description="Brokers to find the cluster by. Synonym: `KAFKA_BOOTSTRAP_SERVERS`."
    )
    options: Annotated[dict[str, str], Rule("a librdkafka option and its value")] = Field(
        default_factory=ClientOptions,
        description="Passed to librdkafka, `_` for `.`: TLS, SASL, timeouts. Secrets are never printed.",
    )
    group_id: Annotated[str | None, BeforeValidator(_empty_is_unset), Rule("the name of a consumer group")] = Field(
        default=None,
        description="Group that snapshotted offsets are mirrored to, for lag tools; never read back. "
        "Unset: `tailmark-<flow>`.",
    )
    topics: TopicSettings = TopicSettings()
    stop_at_end: _Switch = Field(
        default=False, description="Read to the end offsets seen at start, close the open windows, exit 0."
    )
    source_shards: Annotated[int, *_whole(1, MAX_SOURCE_SHARDS, "consumers")] = Field(
        default=4,
        description="Consumers that the partitions are spread over. A constant of the deployment: part of the state.",
    )

    @field_validator("options", mode="before")
    @classmethod
    def _flat(cls, value: object) -> object:
        """Flatten TOML's dotted keys and write every key the way librdkafka does."""
        return dict(flat_options(value)) if isinstance(value, dict) else value

    @field_validator("options")
    @classmethod
    def _allowed(cls, value: dict[str, str]) -> dict[str, str]:
        refusal = refused_option(value)
        if refusal is not None:
            raise _broken(refusal.rule, key=refusal.key, unknown=refusal.unknown)
        return ClientOptions(value)

    def group_for(self, flow: str) -> str:
        """Name the consumer group that a flow's offsets are mirrored to."""
        return self.group_id or f"tailmark-{flow}"


class WindowSettings(_Group):
    """Sliding windows over event time."""

    length_ms: _Duration = Field(default=60_000, description="Length of a window.")
    slide_ms: _Duration = Field(
        default=10_000, description="Time from one window's end to the next; must divide the length."
    )
    allowed_lateness_ms: _DurationOrZero = Field(
        default=5_000, description="How far event time may run backwards in a partition before an event is late."
    )
    idle_after_ms: _Duration = Field(
        default=15_000, description="A partition that brought nothing for this long holds no window open."
    )
    series_ttl_ms: _Duration = Field(
        default=600_000,
        description="Event time after which a silent series is forgotten; until then it has empty windows.",
    )
    max_series: Annotated[int, *_whole(1, MAX_SERIES, "series")] = Field(
        default=100_000, description="Past it new series fold into endpoint `__overflow__` of their service, counted."
    )
    shards: Annotated[int, *_whole(1, MAX_SHARDS, "shards")] = Field(
        default=16, description="Keys that the series are spread over. A constant of the deployment: part of the state."
    )

    @field_validator("slide_ms")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        length_ms = info.data.get("length_ms")
        if length_ms is not None and length_ms % value:
            consequence = "or panes would straddle windows"
            raise _broken(
                f"must divide window.length_ms ({length_ms}), {consequence}",
                other=("window", "length_ms"),
                other_rule=f"must be a multiple of window.slide_ms ({value}), {consequence}",
            )
        return value


class EventSettings(_Group):
    """What counts as an event, and how to read those of other producers."""

    max_future_ms: _DurationOrZero = Field(
        default=60_000, description="An event further ahead of its record's Kafka timestamp is a dead letter."
    )
    max_bytes: Annotated[int, *_whole(1, MAX_VALUE_BYTES, "bytes")] = Field(
        default=1_048_576, description="A larger record is a dead letter."
    )
    fields: Annotated[
        dict[Literal[EVENT_FIELDS], _KeyPath],  # type: ignore[valid-type]  # the names are one tuple, used twice
        Rule("a JSON key, or a path of keys joined with dots, for one of " + ", ".join(EVENT_FIELDS)),
    ] = Field(default_factory=dict, description="The key that a field has in the producers' JSON; dots reach inside.")
    timestamp_unit: Annotated[Literal["ms", "s", "us", "ns", "iso"], Rule("one of ms, s, us, ns, iso")] = Field(
        default="ms", description="Unit of the timestamp."
    )
    latency_unit: Annotated[Literal["ms", "s", "us", "ns"], Rule("one of ms, s, us, ns")] = Field(
        default="ms", description="Unit of the latency."
    )
    dead_letters: _Switch = Field(
        default=False, description="Other flows than anomaly, which always does, write dead letters too."
    )

    def dead_letters_from(self, flow: str) -> bool:
        """Tell whether a flow writes the messages that it rejects, or only counts them."""
        return flow == "anomaly" or self.dead_letters


class ArchiveSettings(_Group):
    """The Parquet archive."""

    path: _Text = Field(default="archive", description="Directory of the dataset.")


class PrometheusSettings(_Group):
    """The page to scrape, and remote write."""

    host: _Text = Field(default="127.0.0.1", description="Address that the page listens on.")
    port: Annotated[_Port | None, BeforeValidator(_empty_is_unset), Rule("a port from 1 to 65535")] = Field(
        default=None,
        description="Port of process 0; process i adds 10 * i. Unset: 8000 for anomaly, 8001 bridge, 8002 archive.",
    )
    remote_write_url: Annotated[
        _Url | None,
        BeforeValidator(_empty_is_unset),
        _URL_RULE,
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
        if port > _LAST_PORT:
            msg = (
                f"TAILMARK_PROMETHEUS__PORT={first}: leaves no port for process {process}, "
                f"which would listen on {port}; the last port is {_LAST_PORT}"
            )
            raise SettingsError(msg)
        return port


class AlertmanagerSettings(_Group):
    """Where alerts are sent."""

    urls: Annotated[
        tuple[_Url, ...],
        BeforeValidator(_listed),
        _URLS_RULE,
    ] = Field(default=(), description="Every replica, separated by commas: each gets every alert. Unset: off.")


class Settings(BaseSettings):
    """Everything that a program of Tailmark can be told."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True
    )

    kafka: KafkaSettings = KafkaSettings()
    window: WindowSettings = WindowSettings()
    events: EventSettings = EventSettings()
    archive: ArchiveSettings = ArchiveSettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    alertmanager: AlertmanagerSettings = AlertmanagerSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing by construction alone: `load_settings` is the one door to the environment."""
        return (init_settings,)

    def client(self, overrides: Mapping[str, Any] | None = None) -> ClientOptions:
        """Build the options of a Kafka client: consumer, producer or admin.

        Args:
            overrides: Options in librdkafka's spelling that win over the user's.

        Returns:
            A dict of its own for each call, with the brokers, the user's options and the overrides.
        """
        brokers = {"bootstrap.servers": self.kafka.bootstrap_servers, "client.id": "tailmark"}
        return ClientOptions({**brokers, **self.kafka.options, **(overrides or {})})


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment and from the TOML file that `TAILMARK_CONFIG` names.

    Nothing else is read: no `.env` file, no working directory, no network.

    Args:
        environ: Variables to read in place of those of the process.

    Returns:
        The validated settings; the environment wins over the file, and both over the defaults.

    Raises:
        SettingsError: A key is unknown, a value impossible, or the file can't be read. One line, without secrets.
    """
    return read_settings(Settings, os.environ if environ is None else environ)

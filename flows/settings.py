"""All settings of the flows: one validated, frozen object from the environment and a TOML file.

This is the only module that reads the environment. A program calls `load_settings` once, before it reads anything
else, and hands the `Settings` down; nothing below the flows knows where a value came from. `Settings()` is the
defaults, whatever the environment says.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.alert_settings import AlertSettings
from flows.client_options import ClientOptions, flat_options, refused_option
from flows.detection_settings import DetectionSettings
from flows.output_settings import AlertmanagerSettings, ArchiveSettings, PrometheusSettings
from flows.setting_sources import Rule, SettingsError, read_settings
from flows.setting_types import (
    Duration,
    DurationOrZero,
    Group,
    KeyPath,
    Switch,
    Topic,
    broken,
    empty_is_unset,
    servers,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationInfo
    from pydantic_settings import PydanticBaseSettingsSource

__all__ = ["ClientOptions", "Settings", "SettingsError", "load_settings"]

MAX_VALUE_BYTES: Final = 1_000_000_000
"""Largest `events.max_bytes`: the most that librdkafka fetches at once."""

MAX_SOURCE_SHARDS: Final = 256
MAX_SHARDS: Final = 4096
MAX_SERIES: Final = 10_000_000

EVENT_FIELDS: Final = (
    "timestamp_ms", "service", "latency_ms", "endpoint", "status", "event_id", "trace_id", "heartbeat"
)  # fmt: skip
"""Names under `events.fields`: the fields of an event that a producer may call otherwise."""


class TopicSettings(Group):
    """Names of the topics."""

    events: Topic = Field(default="telemetry.events", description="Where every flow reads events from.")
    windows: Topic = Field(
        default="telemetry.windows", description="Closed and scored windows, written by `flows.anomaly`."
    )
    alerts: Topic = Field(default="telemetry.alerts", description="Alert transitions, written by `flows.anomaly`.")
    alerts_state: Topic = Field(
        default="telemetry.alerts.state", description="Latest transition of each alert, compacted."
    )
    dead_letter: Topic = Field(default="telemetry.dead-letter", description="Rejected messages, their bytes unchanged.")
    truth: Topic = Field(default="telemetry.truth", description="Labelled incidents, written by the simulator.")

    @field_validator("*")
    @classmethod
    def _differ(cls, value: str, info: ValidationInfo) -> str:
        for other, name in info.data.items():
            if name == value:
                consequence = "or a flow would read what it writes"
                raise broken(
                    f"must differ from kafka.topics.{other}, {consequence}",
                    other=("kafka", "topics", other),
                    other_rule=f"must differ from kafka.topics.{info.field_name}, {consequence}",
                )
        return value


class KafkaSettings(Group):
    """Where the log is, and how to talk to it."""

    bootstrap_servers: Annotated[
        str, AfterValidator(servers), Rule("`host:port`, or several of them separated by commas")
    ] = Field(
        default="localhost:9092", description="Brokers to find the cluster by. Synonym: `KAFKA_BOOTSTRAP_SERVERS`."
    )
    options: Annotated[dict[str, str], Rule("a librdkafka option and its value")] = Field(
        default_factory=ClientOptions,
        description="Passed to librdkafka, `_` for `.`: TLS, SASL, timeouts. Secrets are never printed.",
    )
    group_id: Annotated[str | None, BeforeValidator(empty_is_unset), Rule("the name of a consumer group")] = Field(
        default=None,
        description="Group that snapshotted offsets are mirrored to, for lag tools; never read back. "
        "Unset: `tailmark-<flow>`.",
    )
    topics: TopicSettings = TopicSettings()
    stop_at_end: Switch = Field(
        default=False, description="Read to the end offsets seen at start, close the open windows, exit 0."
    )
    source_shards: Annotated[int, *whole(1, MAX_SOURCE_SHARDS, "consumers")] = Field(
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
            raise broken(refusal.rule, key=refusal.key, unknown=refusal.unknown)
        return ClientOptions(value)

    def group_for(self, flow: str) -> str:
        """Name the consumer group that a flow's offsets are mirrored to."""
        return self.group_id or f"tailmark-{flow}"


class WindowSettings(Group):
    """Sliding windows over event time."""

    length_ms: Duration = Field(default=60_000, description="Length of a window.")
    slide_ms: Duration = Field(
        default=10_000, description="Time from one window's end to the next; must divide the length."
    )
    allowed_lateness_ms: DurationOrZero = Field(
        default=5_000, description="How far event time may run backwards in a partition before an event is late."
    )
    idle_after_ms: Duration = Field(
        default=15_000, description="A partition that brought nothing for this long holds no window open."
    )
    series_ttl_ms: Duration = Field(
        default=600_000,
        description="Event time after which a silent series is forgotten; until then it has empty windows.",
    )
    max_series: Annotated[int, *whole(1, MAX_SERIES, "series")] = Field(
        default=100_000, description="Past it new series fold into endpoint `__overflow__` of their service, counted."
    )
    shards: Annotated[int, *whole(1, MAX_SHARDS, "shards")] = Field(
        default=16, description="Keys that the series are spread over. A constant of the deployment: part of the state."
    )

    @field_validator("slide_ms")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        length_ms = info.data.get("length_ms")
        if length_ms is not None and length_ms % value:
            consequence = "or panes would straddle windows"
            raise broken(
                f"must divide window.length_ms ({length_ms}), {consequence}",
                other=("window", "length_ms"),
                other_rule=f"must be a multiple of window.slide_ms ({value}), {consequence}",
            )
        return value


class EventSettings(Group):
    """What counts as an event, and how to read those of other producers."""

    max_future_ms: DurationOrZero = Field(
        default=60_000, description="An event further ahead of its record's Kafka timestamp is a dead letter."
    )
    max_bytes: Annotated[int, *whole(1, MAX_VALUE_BYTES, "bytes")] = Field(
        default=1_048_576, description="A larger record is a dead letter."
    )
    fields: Annotated[
        dict[Literal[EVENT_FIELDS], KeyPath],  # type: ignore[valid-type]  # the names are one tuple, used twice
        Rule("a JSON key, or a path of keys joined with dots, for one of " + ", ".join(EVENT_FIELDS)),
    ] = Field(default_factory=dict, description="The key that a field has in the producers' JSON; dots reach inside.")
    timestamp_unit: Annotated[Literal["ms", "s", "us", "ns", "iso"], Rule("one of ms, s, us, ns, iso")] = Field(
        default="ms", description="Unit of the timestamp."
    )
    latency_unit: Annotated[Literal["ms", "s", "us", "ns"], Rule("one of ms, s, us, ns")] = Field(
        default="ms", description="Unit of the latency."
    )
    dead_letters: Switch = Field(
        default=False, description="Other flows than anomaly, which always does, write dead letters too."
    )

    def dead_letters_from(self, flow: str) -> bool:
        """Tell whether a flow writes the messages that it rejects, or only counts them."""
        return flow == "anomaly" or self.dead_letters


class Settings(BaseSettings):
    """Everything that a program of Tailmark can be told."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True
    )

    kafka: KafkaSettings = KafkaSettings()
    window: WindowSettings = WindowSettings()
    events: EventSettings = EventSettings()
    detection: DetectionSettings = DetectionSettings()
    alerts: AlertSettings = AlertSettings()
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

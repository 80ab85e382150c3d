"""Settings: where they come from, which are refused, and that no secret is ever printed."""

from __future__ import annotations

import pickle
import string
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from flows.client_options import RESERVED_OPTIONS
from flows.masking import MASK, mask_urls, shown
from flows.output_settings import PrometheusSettings
from flows.setting_sources import settings_of, spelling, variable
from flows.settings import (
    KafkaSettings,
    Settings,
    SettingsError,
    WindowSettings,
    load_settings,
)

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2"

# Key and default of the table in the contract, and the two constants of a deployment.
CONTRACT: dict[str, Any] = {
    "KAFKA__BOOTSTRAP_SERVERS": "localhost:9092",
    "KAFKA__OPTIONS": {},
    "KAFKA__GROUP_ID": None,
    "KAFKA__TOPICS__EVENTS": "telemetry.events",
    "KAFKA__TOPICS__WINDOWS": "telemetry.windows",
    "KAFKA__TOPICS__ALERTS": "telemetry.alerts",
    "KAFKA__TOPICS__ALERTS_STATE": "telemetry.alerts.state",
    "KAFKA__TOPICS__DEAD_LETTER": "telemetry.dead-letter",
    "KAFKA__TOPICS__TRUTH": "telemetry.truth",
    "KAFKA__STOP_AT_END": False,
    "KAFKA__SOURCE_SHARDS": 4,
    "WINDOW__LENGTH_MS": 60_000,
    "WINDOW__SLIDE_MS": 10_000,
    "WINDOW__ALLOWED_LATENESS_MS": 5_000,
    "WINDOW__IDLE_AFTER_MS": 15_000,
    "WINDOW__SERIES_TTL_MS": 600_000,
    "WINDOW__MAX_SERIES": 100_000,
    "WINDOW__SHARDS": 16,
    "EVENTS__MAX_FUTURE_MS": 60_000,
    "EVENTS__MAX_BYTES": 1_048_576,
    "EVENTS__FIELDS": {},
    "EVENTS__TIMESTAMP_UNIT": "ms",
    "EVENTS__LATENCY_UNIT": "ms",
    "EVENTS__DEAD_LETTERS": False,
    "ARCHIVE__PATH": "archive",
    "ARCHIVE__PUBLISH_EVERY_MS": 600_000,
    "ARCHIVE__PUBLISH_ROWS": 1_000_000,
    "PROMETHEUS__HOST": "127.0.0.1",
    "PROMETHEUS__PORT": None,
    "PROMETHEUS__REMOTE_WRITE_URL": None,
    "PROMETHEUS__REMOTE_WRITE_VERSION": None,
    "PROMETHEUS__REMOTE_WRITE_NATIVE": True,
    "PROMETHEUS__REMOTE_WRITE_MAX_SAMPLES": 2_000,
    "PROMETHEUS__REMOTE_WRITE_WAITING_SAMPLES": 100_000,
    "PROMETHEUS__REMOTE_WRITE_TIMEOUT_MS": 5_000,
    "PROMETHEUS__REMOTE_WRITE_MAX_PAUSE_MS": 5_000,
    "PROMETHEUS__REMOTE_WRITE_MAX_AGE_MS": None,
    "PROMETHEUS__REMOTE_WRITE_BEARER_TOKEN": None,
    "PROMETHEUS__REMOTE_WRITE_HEADERS": {},
    "ALERTMANAGER__URLS": (),
    "ALERTMANAGER__BEARER_TOKEN": None,
    "ALERTMANAGER__RESEND_MS": 60_000,
    "ALERTMANAGER__TIMEOUT_MS": 10_000,
    "ALERTMANAGER__MAX_AGE_MS": 300_000,
}

TABLES = tuple(f"{variable(setting.path)}__" for setting in settings_of(Settings) if setting.is_table)
"""What users name the keys of."""

KERNEL_GROUPS = {"detection", "alerts"}


def at(settings: Settings, key: str) -> Any:
    value: Any = settings
    for name in key.lower().split("__"):
        value = getattr(value, name)
    return value


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    line = str(caught.value)
    assert line.isprintable(), "a refusal is one line"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "a chained error would be printed with what is masked here"
    return line


def toml(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "tailmark.toml"
    path.write_text(text)
    return {"TAILMARK_CONFIG": str(path)}


# Defaults and sources


@pytest.mark.parametrize(("key", "default"), CONTRACT.items())
def test_default_is_the_one_of_the_contract(key: str, default: object) -> None:
    assert at(load_settings({}), key) == default


def test_contract_lists_every_setting() -> None:
    """But for those of the detectors and the alerts, whose defaults are those of their kernels."""
    found = {variable(setting.path) for setting in settings_of(Settings) if setting.path[0] not in KERNEL_GROUPS}
    assert found == {f"TAILMARK_{key}" for key in CONTRACT}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("KAFKA__BOOTSTRAP_SERVERS", "a:1,[::1]:2,c", "a:1,[::1]:2,c"),
        ("KAFKA__GROUP_ID", "lag", "lag"),
        ("KAFKA__TOPICS__EVENTS", "prod.events_2-a", "prod.events_2-a"),
        ("KAFKA__TOPICS__WINDOWS", "w", "w"),
        ("KAFKA__TOPICS__ALERTS", "a", "a"),
        ("KAFKA__TOPICS__ALERTS_STATE", "s", "s"),
        ("KAFKA__TOPICS__DEAD_LETTER", "d", "d"),
        ("KAFKA__TOPICS__TRUTH", "t", "t"),
        ("KAFKA__STOP_AT_END", "true", True),
        ("KAFKA__SOURCE_SHARDS", "2", 2),
        ("WINDOW__LENGTH_MS", "90000", 90_000),
        ("WINDOW__SLIDE_MS", "5000", 5_000),
        ("WINDOW__ALLOWED_LATENESS_MS", "0", 0),
        ("WINDOW__IDLE_AFTER_MS", "1", 1),
        ("WINDOW__SERIES_TTL_MS", "70000", 70_000),
        ("WINDOW__MAX_SERIES", "1", 1),
        ("WINDOW__SHARDS", "8", 8),
        ("EVENTS__MAX_FUTURE_MS", "0", 0),
        ("EVENTS__MAX_BYTES", "1000000000", 1_000_000_000),
        ("EVENTS__TIMESTAMP_UNIT", "iso", "iso"),
        ("EVENTS__LATENCY_UNIT", "us", "us"),
        ("EVENTS__DEAD_LETTERS", "true", True),
        ("ARCHIVE__PATH", "data/parquet", "data/parquet"),
        ("ARCHIVE__PUBLISH_EVERY_MS", "1000", 1_000),
        ("ARCHIVE__PUBLISH_ROWS", "1", 1),
        ("PROMETHEUS__HOST", "::", "::"),
        ("PROMETHEUS__PORT", "65535", 65_535),
        ("PROMETHEUS__REMOTE_WRITE_URL", "https://tsdb:9090/api/v1/write", "https://tsdb:9090/api/v1/write"),
        ("ALERTMANAGER__URLS", "http://a:9093, http://b:9093/x", ("http://a:9093", "http://b:9093/x")),
        ("ALERTMANAGER__URLS", '["http://a:9093"]', ("http://a:9093",)),
    ],
)
def test_every_setting_has_an_environment_variable(key: str, text: str, value: object) -> None:
    assert at(load_settings({f"TAILMARK_{key}": text}), key) == value


def test_every_setting_has_a_key_in_the_toml_file(tmp_path: Path) -> None:
    settings = load_settings(
        toml(
            tmp_path,
            """
            [kafka]
            bootstrap_servers = "a:1"
            stop_at_end = true
            [kafka.topics]
            alerts_state = "state"
            [window]
            length_ms = 20_000
            [events.fields]
            latency_ms = "request.took"
            [alertmanager]
            urls = ["http://a:9093", "http://b:9093"]
            """,
        )
    )
    assert settings.kafka.bootstrap_servers == "a:1"
    assert settings.kafka.stop_at_end
    assert settings.kafka.topics.alerts_state == "state"
    assert settings.window.length_ms == 20_000
    assert settings.events.fields == {"latency_ms": "request.took"}
    assert settings.alertmanager.urls == ("http://a:9093", "http://b:9093")


def test_environment_wins_over_the_file_one_setting_at_a_time(tmp_path: Path) -> None:
    environ = toml(tmp_path, "[window]\nlength_ms = 20000\nslide_ms = 4000\n[kafka.options]\n'linger.ms' = 5\n")
    settings = load_settings(
        environ | {"TAILMARK_WINDOW__SLIDE_MS": "5000", "TAILMARK_KAFKA__OPTIONS__CLIENT_RACK": "b"}
    )
    assert (settings.window.length_ms, settings.window.slide_ms) == (20_000, 5_000)
    assert settings.kafka.options == {"linger.ms": "5", "client.rack": "b"}


def test_environment_wins_for_an_option_in_another_spelling(tmp_path: Path) -> None:
    environ = toml(tmp_path, "[kafka.options]\nclient_rack = 'file'\n")
    settings = load_settings(environ | {"TAILMARK_KAFKA__OPTIONS__CLIENT_RACK": "environment"})
    assert settings.kafka.options == {"client.rack": "environment"}


def test_kafka_bootstrap_servers_is_a_synonym_that_beats_the_file(tmp_path: Path) -> None:
    environ = toml(tmp_path, "[kafka]\nbootstrap_servers = 'file:1'\n")
    settings = load_settings(environ | {"KAFKA_BOOTSTRAP_SERVERS": "synonym:1"})
    assert settings.kafka.bootstrap_servers == "synonym:1"


def test_prefixed_form_wins_over_the_synonym() -> None:
    both = {"KAFKA_BOOTSTRAP_SERVERS": "synonym:1", "TAILMARK_KAFKA__BOOTSTRAP_SERVERS": "ours:2"}
    assert load_settings(both).kafka.bootstrap_servers == "ours:2"


def test_empty_synonym_is_not_there() -> None:
    assert load_settings({"KAFKA_BOOTSTRAP_SERVERS": ""}).kafka.bootstrap_servers == "localhost:9092"


@pytest.mark.parametrize(
    "key", ["KAFKA__GROUP_ID", "PROMETHEUS__PORT", "PROMETHEUS__REMOTE_WRITE_URL", "ALERTMANAGER__URLS"]
)
def test_empty_variable_leaves_an_optional_setting_unset(key: str) -> None:
    assert at(load_settings({f"TAILMARK_{key}": ""}), key) == CONTRACT[key]


def test_empty_config_names_no_file() -> None:
    assert load_settings({"TAILMARK_CONFIG": ""}) == Settings()


def test_variables_of_other_programs_are_left_alone() -> None:
    assert load_settings({"PATH": "x", "TAIL": "x", "WINDOW__LENGTH_MS": "1", "TAILMARKS": "2"}) == Settings()


def test_construction_alone_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILMARK_WINDOW__SHARDS", "7")
    monkeypatch.setenv("WINDOW", '{"shards": 9}')
    monkeypatch.setenv("window__shards", "9")
    assert Settings().window.shards == 16
    assert load_settings().window.shards == 7


def test_given_mapping_replaces_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILMARK_NONSENSE", "1")
    assert load_settings({}) == Settings()


def test_settings_can_not_be_changed() -> None:
    settings = load_settings({})
    with pytest.raises(ValidationError):
        settings.window.length_ms = 1
    with pytest.raises(ValidationError):
        settings.window = WindowSettings()


def test_settings_survive_pickling() -> None:
    settings = load_settings({"TAILMARK_KAFKA__OPTIONS__SASL_PASSWORD": SECRET})
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    assert SECRET not in repr(copy)


# Unknown keys


@given(st.text(string.ascii_uppercase + string.digits + "_", min_size=1, max_size=40))
def test_any_unknown_variable_is_refused(name: str) -> None:
    known = {variable(setting.path) for setting in settings_of(Settings)} | {"TAILMARK_CONFIG"}
    key = f"TAILMARK_{name}"
    if key in known or key.startswith(TABLES):
        return
    assert refusal({key: "5"}).startswith(f"{key}=")


@given(
    st.sampled_from([setting.path for setting in settings_of(Settings)]),
    st.text(string.ascii_uppercase + "_", min_size=1, max_size=8),
)
def test_any_unknown_variable_beside_a_known_one_is_refused(path: tuple[str, ...], suffix: str) -> None:
    key = f"{variable(path)}_{suffix}"
    if key.startswith(TABLES) or suffix == "FILE":
        return
    if key in {variable(setting.path) for setting in settings_of(Settings)}:
        return
    assert "is not a setting of tailmark" in refusal({key: "5"})


@given(
    st.sampled_from(["", "kafka.", "kafka.topics.", "window.", "events.", "archive.", "prometheus.", "alertmanager."]),
    st.text(string.ascii_lowercase + "_", min_size=1, max_size=20),
)
def test_any_unknown_key_in_the_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, group: str, name: str
) -> None:
    known = {".".join(setting.path) for setting in settings_of(Settings)}
    if any(key == group + name or key.startswith(f"{group}{name}.") for key in known):
        return
    path = tmp_path_factory.mktemp("unknown") / "tailmark.toml"
    path.write_text(f"{group}{name} = 5\n")
    assert refusal({"TAILMARK_CONFIG": str(path)}).startswith(f"{group}{name}=")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("TAILMARK_WINDOW__LENGHT_MS", "TAILMARK_WINDOW__LENGTH_MS"),
        ("TAILMARK_WINDOW_LENGTH_MS", "TAILMARK_WINDOW__LENGTH_MS"),
        ("TAILMARK_window__length_ms", "TAILMARK_WINDOW__LENGTH_MS"),
        ("TAILMARK_KAFKA__TOPIC__EVENTS", "TAILMARK_KAFKA__TOPICS__EVENTS"),
        ("TAILMARK_ALERTMANAGER__URL", "TAILMARK_ALERTMANAGER__URLS"),
    ],
)
def test_misspelled_variable_is_refused_with_the_one_that_was_meant(key: str, meant: str) -> None:
    assert refusal({key: "1"}) == f"{key}=1: is not a setting of tailmark; did you mean {meant}?"


def test_misspelled_key_in_the_file_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    environ = toml(tmp_path, "[window]\nlenght_ms = 5\n")
    expected = "is not a setting of tailmark; did you mean window.length_ms?"
    assert refusal(environ) == f"window.lenght_ms=5 in {environ['TAILMARK_CONFIG']}: {expected}"


def test_unknown_table_in_the_file_is_refused(tmp_path: Path) -> None:
    environ = toml(tmp_path, "[windows]\nlength_ms = 5\n")
    assert refusal(environ).startswith(f"[windows] in {environ['TAILMARK_CONFIG']}: is not a setting of tailmark")


def test_table_of_options_needs_a_key() -> None:
    assert "TAILMARK_KAFKA__OPTIONS__<KEY>" in refusal({"TAILMARK_KAFKA__OPTIONS": "x"})


@pytest.mark.parametrize("key", ["TAILMARK_", "TAILMARK_WINDOW", "TAILMARK_KAFKA__OPTIONS__", "TAILMARK_CONFIG__X"])
def test_name_of_a_group_is_no_setting(key: str) -> None:
    assert refusal({key: "5"}).startswith(f"{key}=")


# Impossible values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key in (
            "WINDOW__LENGTH_MS",
            "WINDOW__SLIDE_MS",
            "WINDOW__IDLE_AFTER_MS",
            "WINDOW__SERIES_TTL_MS",
            "WINDOW__MAX_SERIES",
            "WINDOW__SHARDS",
            "KAFKA__SOURCE_SHARDS",
            "EVENTS__MAX_BYTES",
            "PROMETHEUS__PORT",
        )
        for value in ("0", "-1", "1.5", "ten", "1e3", "10s", "9" * 30, "nan", "true")
    ]
    + [
        (key, value)
        for key in ("WINDOW__ALLOWED_LATENESS_MS", "EVENTS__MAX_FUTURE_MS")
        for value in ("-1", "0.5", "", "soon", "9" * 30)
    ]
    + [
        ("PROMETHEUS__PORT", "65536"),
        ("PROMETHEUS__HOST", ""),
        ("PROMETHEUS__REMOTE_WRITE_URL", "tsdb:9090"),
        ("PROMETHEUS__REMOTE_WRITE_URL", "ftp://tsdb/api"),
        ("PROMETHEUS__REMOTE_WRITE_URL", "http://"),
        ("PROMETHEUS__REMOTE_WRITE_URL", "http://tsdb:0/"),
        ("PROMETHEUS__REMOTE_WRITE_URL", "http://tsdb:99999/"),
        ("PROMETHEUS__REMOTE_WRITE_URL", "http://[tsdb/"),
        ("PROMETHEUS__REMOTE_WRITE_URL", "http://a/\nb"),
        ("ALERTMANAGER__URLS", "http://a:9093,b:9093"),
        ("ALERTMANAGER__URLS", "[1]"),
        ("ALERTMANAGER__URLS", "[broken"),
        ("KAFKA__BOOTSTRAP_SERVERS", ""),
        ("KAFKA__BOOTSTRAP_SERVERS", "a:0"),
        ("KAFKA__BOOTSTRAP_SERVERS", "a:65536"),
        ("KAFKA__BOOTSTRAP_SERVERS", "a:1,,b:2"),
        ("KAFKA__BOOTSTRAP_SERVERS", "a b:1"),
        ("KAFKA__STOP_AT_END", "perhaps"),
        ("EVENTS__DEAD_LETTERS", ""),
        ("EVENTS__TIMESTAMP_UNIT", "minutes"),
        ("EVENTS__LATENCY_UNIT", "iso"),
        ("EVENTS__FIELDS__LATENCY", "took"),
        ("EVENTS__FIELDS__SERVICE", ""),
        ("EVENTS__FIELDS__SERVICE", "a..b"),
        ("ARCHIVE__PATH", ""),
        ("KAFKA__TOPICS__EVENTS", ""),
        ("KAFKA__TOPICS__EVENTS", "."),
        ("KAFKA__TOPICS__EVENTS", ".."),
        ("KAFKA__TOPICS__EVENTS", "a/b"),
        ("KAFKA__TOPICS__EVENTS", "x" * 250),
    ],
)
def test_impossible_value_is_refused_with_key_value_and_rule(key: str, value: str) -> None:
    line = refusal({f"TAILMARK_{key}": value})
    said, _, rule = line.partition(": ")
    assert said.startswith(f"TAILMARK_{key}={shown(key, value)[:100]}")
    assert rule.startswith(("must be ", "is not "))
    assert len(rule) > len("must be ")


@pytest.mark.parametrize("value", ["true", "7.5", "'x'", "[1]", "{a = 1}", "-5"])
def test_impossible_value_in_the_file_is_refused(tmp_path: Path, value: str) -> None:
    line = refusal(toml(tmp_path, f"[window]\nlength_ms = {value}\n"))
    assert "window.length_ms" in line
    assert "must be a whole number of milliseconds" in line


def test_slide_that_does_not_divide_the_length_is_refused() -> None:
    assert refusal({"TAILMARK_WINDOW__SLIDE_MS": "7000"}) == (
        "TAILMARK_WINDOW__SLIDE_MS=7000: must divide window.length_ms (60000), or panes would straddle windows"
    )


def test_length_is_blamed_when_only_the_length_was_given() -> None:
    assert refusal({"TAILMARK_WINDOW__LENGTH_MS": "65000"}) == (
        "TAILMARK_WINDOW__LENGTH_MS=65000: must be a multiple of window.slide_ms (10000), "
        "or panes would straddle windows"
    )


def test_slide_longer_than_the_window_is_refused() -> None:
    assert "must divide" in refusal({"TAILMARK_WINDOW__SLIDE_MS": "120000"})


@given(st.integers(1, 10_000), st.integers(1, 100))
def test_any_slide_that_divides_the_length_is_taken(slide_ms: int, panes: int) -> None:
    environ = {"TAILMARK_WINDOW__SLIDE_MS": str(slide_ms), "TAILMARK_WINDOW__LENGTH_MS": str(slide_ms * panes)}
    assert load_settings(environ).window.length_ms == slide_ms * panes


@pytest.mark.parametrize("given_topic", ["EVENTS", "WINDOWS"])
def test_flow_that_would_read_what_it_writes_is_refused(given_topic: str) -> None:
    other = {"EVENTS": "windows", "WINDOWS": "events"}[given_topic]
    line = refusal({f"TAILMARK_KAFKA__TOPICS__{given_topic}": f"telemetry.{other}"})
    assert line == (
        f"TAILMARK_KAFKA__TOPICS__{given_topic}=telemetry.{other}: must differ from kafka.topics.{other}, "
        "or a flow would read what it writes"
    )


def test_synonym_is_named_as_the_user_wrote_it() -> None:
    assert refusal({"KAFKA_BOOTSTRAP_SERVERS": "a:b"}).startswith("KAFKA_BOOTSTRAP_SERVERS=a:b: must be `host:port`")


@given(st.text(min_size=1, max_size=300))
def test_refusal_of_any_text_is_one_short_line(text: str) -> None:
    line = refusal({"TAILMARK_EVENTS__TIMESTAMP_UNIT": f"{text}!"})
    assert len(line) < 250


# The file itself


def test_absent_file_is_refused(tmp_path: Path) -> None:
    name = str(tmp_path / "absent.toml")
    assert refusal({"TAILMARK_CONFIG": name}).startswith("TAILMARK_CONFIG=")


def test_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert refusal({"TAILMARK_CONFIG": str(tmp_path)}).endswith("this is a directory")


def test_file_that_is_no_toml_is_refused_with_the_line(tmp_path: Path) -> None:
    assert "line 2" in refusal(toml(tmp_path, "[kafka]\nbootstrap_servers = \n"))


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tailmark.toml"
    path.write_bytes(b"\xff\xfe[kafka]")
    assert "UTF-8" in refusal({"TAILMARK_CONFIG": str(path)})


def test_file_that_fails_to_be_read_is_refused() -> None:
    # A regular file that even root can't read from its beginning.
    assert "can't be read" in refusal({"TAILMARK_CONFIG": "/proc/self/mem"})


def test_group_that_is_no_table_is_refused(tmp_path: Path) -> None:
    environ = toml(tmp_path, "window = 5\n")
    assert refusal(environ) == f"window=5 in {environ['TAILMARK_CONFIG']}: must be a table of settings"


# Options of librdkafka


def test_options_are_spelled_as_librdkafka_does() -> None:
    options = load_settings(
        {
            "TAILMARK_KAFKA__OPTIONS__SECURITY_PROTOCOL": "SASL_SSL",
            "TAILMARK_KAFKA__OPTIONS__SSL_CA_LOCATION": "/etc/ca.pem",
            "TAILMARK_KAFKA__OPTIONS__SASL_MECHANISM": "SCRAM-SHA-512",
        }
    ).kafka.options
    assert options == {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "/etc/ca.pem",
        "sasl.mechanism": "SCRAM-SHA-512",
    }


@pytest.mark.parametrize(
    "text",
    [
        "[kafka.options]\nsecurity.protocol = 'ssl'\nenable.ssl.certificate.verification = false\n",
        "[kafka.options]\n'security.protocol' = 'ssl'\n'enable.ssl.certificate.verification' = false\n",
        "[kafka.options]\nsecurity_protocol = 'ssl'\nenable_ssl_certificate_verification = false\n",
    ],
    ids=["dotted", "quoted", "underscored"],
)
def test_options_in_the_file_may_be_dotted_quoted_or_underscored(tmp_path: Path, text: str) -> None:
    options = load_settings(toml(tmp_path, text)).kafka.options
    assert options == {"security.protocol": "ssl", "enable.ssl.certificate.verification": "false"}


@pytest.mark.parametrize("option", RESERVED_OPTIONS)
def test_option_that_guarantees_rest_on_is_refused(option: str) -> None:
    key = variable(("kafka", "options", option))
    assert refusal({key: "x"}) == f"{key}=x: {RESERVED_OPTIONS[option]}"


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("LINGR_MS", "5", "is not an option of librdkafka"),
        ("LINGER_MS", "soon", "is not a value that librdkafka takes"),
        ("SOCKET_KEEPALIVE_ENABLE", "perhaps", "is not a value that librdkafka takes"),
        ("SECURITY_PROTOCOL", "TLS", "must be one of plaintext, ssl, sasl_plaintext, sasl_ssl"),
    ],
)
def test_option_that_librdkafka_refuses_is_refused_before_anything_runs(key: str, value: str, rule: str) -> None:
    name = f"TAILMARK_KAFKA__OPTIONS__{key}"
    assert refusal({name: value}) == f"{name}={value}: {rule}"


def test_option_in_the_file_is_refused_with_the_file(tmp_path: Path) -> None:
    environ = toml(tmp_path, "[kafka.options]\nlinger.ms = 'soon'\n")
    expected = f"kafka.options.linger.ms=soon in {environ['TAILMARK_CONFIG']}: is not a value that librdkafka takes"
    assert refusal(environ) == expected


def test_judging_options_loads_no_certificate_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    load_settings(
        {
            "TAILMARK_KAFKA__OPTIONS__SECURITY_PROTOCOL": "ssl",
            "TAILMARK_KAFKA__OPTIONS__SSL_CA_LOCATION": "/nowhere/ca.pem",
            "TAILMARK_KAFKA__OPTIONS__DEBUG": "all",
            "TAILMARK_KAFKA__OPTIONS__SESSION_TIMEOUT_MS": "9000",
        }
    )
    assert capfd.readouterr() == ("", "")


def test_client_has_brokers_options_and_overrides_in_that_order() -> None:
    settings = load_settings({"KAFKA_BOOTSTRAP_SERVERS": "a:1", "TAILMARK_KAFKA__OPTIONS__FETCH_MIN_BYTES": "7"})
    assert settings.client() == {"bootstrap.servers": "a:1", "client.id": "tailmark", "fetch.min.bytes": "7"}
    assert settings.client({"fetch.min.bytes": 9, "group.id": "g"}) == {
        "bootstrap.servers": "a:1",
        "client.id": "tailmark",
        "fetch.min.bytes": 9,
        "group.id": "g",
    }
    assert settings.client() is not settings.client()


# Derived values


def test_group_is_named_after_the_flow_unless_told() -> None:
    assert KafkaSettings().group_for("anomaly") == "tailmark-anomaly"
    assert KafkaSettings(group_id="mine").group_for("anomaly") == "mine"


def test_each_flow_and_process_has_a_port_of_its_own() -> None:
    flows = ("anomaly", "bridge", "archive")
    assert [PrometheusSettings().port_for(flow, 0) for flow in flows] == [8000, 8001, 8002]
    ports = {PrometheusSettings().port_for(flow, process) for flow in flows for process in range(10)}
    assert len(ports) == 30
    assert PrometheusSettings(port=9000).port_for("anomaly", 2) == 9020


def test_process_without_a_port_is_refused() -> None:
    with pytest.raises(SettingsError, match="leaves no port for process 1"):
        PrometheusSettings(port=65_530).port_for("anomaly", 1)


def test_only_anomaly_writes_dead_letters_unless_told() -> None:
    events = load_settings({}).events
    assert events.dead_letters_from("anomaly")
    assert not events.dead_letters_from("bridge")
    assert load_settings({"TAILMARK_EVENTS__DEAD_LETTERS": "true"}).events.dead_letters_from("bridge")


# Secrets

SECRETS = {
    "TAILMARK_KAFKA__OPTIONS__SASL_PASSWORD": SECRET,
    "TAILMARK_KAFKA__OPTIONS__SSL_KEY_PASSWORD": SECRET,
    "TAILMARK_KAFKA__OPTIONS__SASL_OAUTHBEARER_CLIENT_SECRET": SECRET,
    "TAILMARK_PROMETHEUS__REMOTE_WRITE_URL": f"https://user:{SECRET}@tsdb/write",
    "TAILMARK_ALERTMANAGER__URLS": f"http://a:9093,http://b:9093/?token={SECRET}",
    "TAILMARK_ALERTMANAGER__BEARER_TOKEN": SECRET,
}


def test_no_form_of_printing_shows_a_secret() -> None:
    settings = load_settings(SECRETS)
    console = Console(file=StringIO(), width=400)
    console.print(settings, settings.kafka, settings.kafka.options, settings.prometheus)
    printed = [
        repr(settings),
        str(settings),
        f"{settings.kafka} {settings.prometheus!s} {settings.alertmanager}",
        f"{settings.kafka.options}",
        repr(settings.client()),
        f"{settings.client({'sasl.password': SECRET})}",
        str(console.file.getvalue()),  # type: ignore[attr-defined]
    ]
    assert all(SECRET not in text for text in printed)
    assert all(MASK in text for text in printed)


def test_secret_reaches_the_client_all_the_same() -> None:
    settings = load_settings(SECRETS)
    assert settings.client()["sasl.password"] == SECRET
    assert settings.prometheus.remote_write_url == f"https://user:{SECRET}@tsdb/write"


@pytest.mark.parametrize(
    "environ",
    [
        {"TAILMARK_KAFKA__SASL_PASSWORD": SECRET},
        {"TAILMARK_KAFKA__OPTIONS__SASL_PASWORD": SECRET},
        {"TAILMARK_KAFKA__OPTIONS__SASL_PWD": SECRET},
        {"TAILMARK_API_KEY": SECRET},
        {"TAILMARK_WINDOWS__X": f"http://me:{SECRET}@host"},
        {"TAILMARK_PROMETHEUS__REMOTE_WRITE_URL": f"htp://me:{SECRET}@host/"},
        {"TAILMARK_PROMETHEUS__REMOTE_WRITE_URL": f"me:{SECRET}@host/"},
        {"TAILMARK_ALERTMANAGER__URLS": f"http://a:1,b:{SECRET}@c"},
        {"TAILMARK_ALERTMANAGER__URLS": f"http://a:1,http://b:x,{SECRET}@c,x"},
        {"KAFKA_BOOTSTRAP_SERVERS": f"sasl://me:{SECRET}@host:9092"},
        {"TAILMARK_EVENTS__FIELDS__SERVICE": f"..://u:{SECRET}@h"},
        {
            "TAILMARK_KAFKA__OPTIONS__SASL_PASSWORD": SECRET,
            "TAILMARK_KAFKA__OPTIONS__SASL_MECHANISMS": "A,B",
            "TAILMARK_KAFKA__OPTIONS__LINGER_MS": "x",
        },
    ],
)
def test_no_refusal_shows_a_secret(environ: dict[str, str]) -> None:
    assert SECRET not in refusal(environ)


def test_no_refusal_of_the_file_shows_a_secret(tmp_path: Path) -> None:
    texts = [
        f"[kafka]\nsasl_password = '{SECRET}'\n",
        f"[kafka.options]\nsasl.pasword = '{SECRET}'\n",
        f"[kafka.options]\nsasl.password = '{SECRET}'\nlinger.ms = 'x'\n",
        f"kafka = {{ password = '{SECRET}' }}\n",
        f"[prometheus]\nremote_write_url = 'x://u:{SECRET}@h'\n",
        f"[alertmanager]\nurls = ['http://a', 'u:{SECRET}@h']\n",
        f"alertmanager = ['http://u:{SECRET}@h']\n",
        f"[kafka.options]\nsasl.password = '{SECRET}\n",
    ]
    assert all(SECRET not in refusal(toml(tmp_path, text)) for text in texts)


def test_error_of_a_direct_construction_shows_no_secret() -> None:
    with pytest.raises(ValidationError) as caught:
        PrometheusSettings(remote_write_url=f"x://u:{SECRET}@h")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host/path", "http://host/path"),
        ("http://u:p@host/path", "http://***@host/path"),
        ("http://token@host", "http://***@host"),
        ("http://u:p/w@host", "http://***@host"),
        ("http://u:p@w@host", "http://***@host"),
        ("u:p@host", "***@host"),
        ("http://a,http://u:p@b", "http://a,http://***@b"),
        ("http://u:p,w@host", "http://***@host"),
        ("http://h/?a=1&api_key=x#f", "http://h/?a=1&api_key=***#f"),
        ("", ""),
    ],
)
def test_user_part_and_tokens_of_a_url_are_masked(text: str, expected: str) -> None:
    assert mask_urls(text) == expected


@given(st.text(string.ascii_letters + string.digits + ":/@,?&=#%", min_size=3).map(lambda text: f"S{text}T"))
def test_no_password_in_a_url_survives_masking(password: str) -> None:
    assert password not in mask_urls(f"https://user:{password}@host:9090/write")
    assert password not in mask_urls(f"http://a:9093,http://user:{password}@host")


# The words of the documentation


def test_every_setting_says_what_it_does_and_what_it_takes() -> None:
    for setting in settings_of(Settings):
        assert setting.field.description, setting.path
        assert setting.rule, setting.path


def test_spelling_does_not_tell_dots_from_underscores() -> None:
    assert spelling(("kafka", "options", "security_protocol")) == spelling(("kafka", "options", "security.protocol"))


def test_a_file_holds_the_value_of_a_setting(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n", encoding="utf-8")
    (tmp_path / "brokers").write_text("kafka:9092", encoding="utf-8")
    settings = load_settings(
        {
            "TAILMARK_KAFKA__OPTIONS__SASL_PASSWORD_FILE": str(tmp_path / "password"),
            "TAILMARK_KAFKA__BOOTSTRAP_SERVERS_FILE": str(tmp_path / "brokers"),
        }
    )
    assert settings.client()["sasl.password"] == SECRET
    assert settings.kafka.bootstrap_servers == "kafka:9092"


def test_a_file_of_a_setting_must_be_readable_and_the_only_source_of_it(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"\xff\xfe")
    name = "TAILMARK_KAFKA__OPTIONS__SASL_PASSWORD"
    for environ, rule in (
        ({f"{name}_FILE": str(tmp_path / "none")}, "No such file"),
        ({f"{name}_FILE": str(tmp_path)}, "Is a directory"),
        ({f"{name}_FILE": str(tmp_path / "password")}, "not UTF-8"),
        ({f"{name}_FILE": str(tmp_path / "password"), name: SECRET}, f"{name} is set as well"),
        ({"TAILMARK_KAFKA__PASSWORD_FILE": str(tmp_path / "password")}, "is not a setting"),
    ):
        with pytest.raises(SettingsError) as refused:
            load_settings(environ)
        assert rule in str(refused.value)
        assert SECRET not in str(refused.value)

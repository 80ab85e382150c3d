"""Settings of detectors and alerts: their defaults are the kernels' own, and what can't work is named."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from cli.config import toml_lines
from flows.alert_settings import policy_of
from flows.detection_settings import scoring_of
from flows.settings import SettingsError, load_settings
from operators.kernels.episodes import EpisodeConfig, Maintenance
from operators.kernels.scoring import ScoringConfig
from operators.kernels.scoring.novelty import Novelty
from operators.kernels.scoring.protocol import WindowSpan
from operators.kernels.scoring.rules import BurnRate, Limits

if TYPE_CHECKING:
    from pathlib import Path


def test_detection_that_nobody_set_is_that_of_the_kernels() -> None:
    settings = load_settings({})
    assert scoring_of(settings) == ScoringConfig()
    assert policy_of(settings) == EpisodeConfig()


def test_times_of_alerts_that_nobody_set_follow_the_windows() -> None:
    settings = load_settings({"TAILMARK_WINDOW__LENGTH_MS": "30000", "TAILMARK_WINDOW__SLIDE_MS": "5000"})
    assert policy_of(settings) == EpisodeConfig.for_windows(length_ms=30_000, slide_ms=5_000)


def test_every_setting_of_detection_reaches_the_scorer() -> None:
    usual = {one.name: getattr(ScoringConfig(), one.name) for one in fields(ScoringConfig)}
    numbers = {name: value for name, value in usual.items() if isinstance(value, int | float)}
    given = {name: value / 2 if isinstance(value, float) else 2 * value + 1 for name, value in numbers.items()}
    settings = load_settings({f"TAILMARK_DETECTION__{name.upper()}": str(value) for name, value in given.items()})
    assert set(usual) - set(numbers) == {"panel", "local_time"}
    assert scoring_of(settings) == ScoringConfig(**given)


def test_time_zone_is_a_table_of_its_offsets() -> None:
    berlin = scoring_of(load_settings({"TAILMARK_DETECTION__TIME_ZONE": "Europe/Berlin"})).local_time
    zone = ZoneInfo("Europe/Berlin")
    for moment in (
        datetime(2024, 3, 31, 0, 59, 59, tzinfo=UTC),
        datetime(2024, 3, 31, 1, 0, 0, tzinfo=UTC),
        datetime(2024, 10, 27, 0, 59, 59, tzinfo=UTC),
        datetime(2024, 10, 27, 1, 0, 0, tzinfo=UTC),
        datetime(2060, 7, 1, tzinfo=UTC),
    ):
        at_ms = int(moment.timestamp()) * 1_000
        offset = moment.astimezone(zone).utcoffset()
        assert offset is not None
        assert berlin.local_ms(at_ms) - at_ms == offset.total_seconds() * 1_000


def test_time_zone_that_nobody_knows_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"TIME_ZONE=Berlin: must be the name of a time zone"):
        load_settings({"TAILMARK_DETECTION__TIME_ZONE": "Berlin"})


@pytest.mark.parametrize(
    ("name", "value", "reaches"),
    [
        ("OPEN_WINDOWS", "1", 1),
        ("IMMEDIATE_SCORE", "3.5", 3.5),
        ("QUIET_MS", "120000", 120_000),
        ("FLAP_OPENS", "5", 5),
        ("TRAFFIC_RISES_OPEN", "true", True),
        ("SILENCE_FLOOR_MS", "60000", 60_000),
    ],
)
def test_setting_of_alerts_reaches_the_policy(name: str, value: str, reaches: float) -> None:
    policy = policy_of(load_settings({f"TAILMARK_ALERTS__{name}": value}))
    assert getattr(policy, name.lower()) == reaches


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"TAILMARK_ALERTS__QUIET_MS": "60000"}, "TAILMARK_ALERTS__QUIET_MS=60000: `quiet_ms` must be longer than"),
        ({"TAILMARK_ALERTS__OPEN_WINDOWS": "4"}, "TAILMARK_ALERTS__OPEN_WINDOWS=4: `open_windows` must be in 1.."),
        ({"TAILMARK_ALERTS__FLAP_QUIET_MS": "5"}, "TAILMARK_ALERTS__FLAP_OPENS=3: `flap_opens` must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_alerts_that_could_not_work_are_refused_with_their_setting(environ: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        policy_of(load_settings(environ))
    assert str(caught.value).startswith(line)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["nan", "inf", "0", "16", "true", "x"])
def test_number_outside_its_range_is_refused_with_the_rule(value: str) -> None:
    with pytest.raises(SettingsError, match=r"SURPRISE=.* must be -log10 of a probability from 1 to 15"):
        load_settings({"TAILMARK_DETECTION__SURPRISE": value})


TOML = """
[detection.detectors]
limit = "static latency_ms=800 errors_ratio=0.05"
slo = "burn_rate objective=0.999 windows=600000/120000/10,3600000/600000/2"
mine = "tests.flows.detector_of_ours:make latency_ms=5"

[detection.series]
"checkout|*" = "default, knn"
"Checkout|/pay" = "limit,slo"
"search|*" = "mine"
"""


def from_toml(tmp_path: Path, text: str) -> ScoringConfig:
    path = tmp_path / "tailmark.toml"
    path.write_text(text)
    return scoring_of(load_settings({"TAILMARK_CONFIG": str(path)}))


def test_detectors_are_chosen_by_pattern_in_the_file(tmp_path: Path) -> None:
    panel = from_toml(tmp_path, TOML).panel
    assert [spec.name for spec in panel.detectors] == ["knn", "limit", "mine", "slo"]
    assert panel.names_for("checkout", "/pay") == ("default", "knn")
    assert panel.names_for("Checkout", "/pay") == ("limit", "slo")
    assert panel.names_for("other", "/") == ("default",)
    span = WindowSpan(60_000, 10_000)
    assert {spec.name: type(spec.build(span, None)) for spec in panel.detectors} == {
        "knn": Novelty,
        "limit": Limits,
        "slo": BurnRate,
        "mine": Limits,
    }
    assert [spec.name for spec in panel.detectors if spec.gated] == ["knn"]


def test_detector_in_the_environment_is_a_text() -> None:
    environ = {"TAILMARK_DETECTION__DETECTORS__LIMIT": "static latency_ms=800"}
    assert [spec.tag for spec in scoring_of(load_settings(environ)).panel.detectors] == ['static {"latency_ms": 800}']


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("static", "needs a positive"),
        ("static latency=800", "unexpected keyword argument 'latency'"),
        ("burn_rate objective=2", "`objective` must be between 0 and 1"),
        ("nowhere.at_all:make", "can't be imported"),
        ("json:nothing", "has no factory 'nothing'"),
    ],
)
def test_detector_that_can_not_be_made_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        scoring_of(load_settings({"TAILMARK_DETECTION__DETECTORS__ODD": text}))
    assert str(caught.value).startswith(f"TAILMARK_DETECTION__DETECTORS__ODD={text}: ")
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


def test_text_that_is_no_detector_is_refused_when_settings_are_read() -> None:
    with pytest.raises(
        SettingsError, match=r"DETECTORS__ODD=magic: must be static, burn_rate, knn or `module:factory`"
    ):
        load_settings({"TAILMARK_DETECTION__DETECTORS__ODD": "magic"})


def test_series_with_a_detector_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[detection.series\]: `series` must give 'a\|\*' one or more of default"):
        from_toml(tmp_path, '[detection.series]\n"a|*" = "nobody"\n')


def test_settings_with_detectors_are_shown_as_they_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "tailmark.toml"
    path.write_text(TOML)
    settings = load_settings({"TAILMARK_CONFIG": str(path)})
    path.write_text("\n".join(toml_lines(settings)))
    assert load_settings({"TAILMARK_CONFIG": str(path)}) == settings


def test_maintenance_is_a_pattern_and_two_times(tmp_path: Path) -> None:
    path = tmp_path / "tailmark.toml"
    path.write_text(
        "[alerts]\nalerts_per_day = 0.5\n[alerts.maintenance]\n"
        '"move" = "checkout|/pay* 2026-11-23T22:00Z/2026-11-24T02:00+01:00"\n'
        '"all" = "* 1000/2000"\n'
    )
    policy = policy_of(load_settings({"TAILMARK_CONFIG": str(path)}))
    assert policy.maintenance == (
        Maintenance("*", 1000, 2000),
        Maintenance("checkout|/pay*", 1_795_471_200_000, 1_795_482_000_000),
    )
    assert policy.alerts_per_day == 0.5


@pytest.mark.parametrize("text", ["*", "* 5", "* 5/4", "* now/then", "1000/2000"])
def test_maintenance_that_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"MAINTENANCE__ODD=.*: must be `PATTERN START/END`"):
        load_settings({"TAILMARK_ALERTS__MAINTENANCE__ODD": text})


def test_surprise_of_the_scores_is_known_to_the_alerts() -> None:
    assert policy_of(load_settings({"TAILMARK_DETECTION__SURPRISE": "6"})).surprise == 6

"""Settings of detectors and alerts: their defaults are the kernels' own, and what can't work is named."""

from __future__ import annotations

from dataclasses import fields

import pytest

from flows.alert_settings import policy_of
from flows.detection_settings import scoring_of
from flows.settings import SettingsError, load_settings
from operators.kernels.episodes import EpisodeConfig
from operators.kernels.scoring import ScoringConfig


def test_detection_that_nobody_set_is_that_of_the_kernels() -> None:
    settings = load_settings({})
    assert scoring_of(settings) == ScoringConfig()
    assert policy_of(settings) == EpisodeConfig()


def test_times_of_alerts_that_nobody_set_follow_the_windows() -> None:
    settings = load_settings({"TAILMARK_WINDOW__LENGTH_MS": "30000", "TAILMARK_WINDOW__SLIDE_MS": "5000"})
    assert policy_of(settings) == EpisodeConfig.for_windows(length_ms=30_000, slide_ms=5_000)


def test_every_setting_of_detection_reaches_the_scorer() -> None:
    given = {field.name: getattr(ScoringConfig(), field.name) for field in fields(ScoringConfig)}
    given = {name: value / 2 if isinstance(value, float) else value * 2 for name, value in given.items()}
    settings = load_settings({f"TAILMARK_DETECTION__{name.upper()}": str(value) for name, value in given.items()})
    assert scoring_of(settings) == ScoringConfig(**given)


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

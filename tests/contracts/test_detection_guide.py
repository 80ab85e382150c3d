"""The detector that the guide shows is whole, keeps the laws, and finds what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flows.alert_settings import AlertSettings
from flows.detection_settings import DetectionSettings
from flows.detector_choice import KINDS, parsed
from operators.kernels.episodes.suppression import REASONS
from operators.kernels.scoring import laws

if TYPE_CHECKING:
    from collections.abc import Callable

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "detection.md").read_text()


def shown() -> Any:
    """Run the Python of the guide."""
    (source,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(source, names)
    return names["TwiceTheMedian"]


@pytest.mark.parametrize("check_law", laws.CHECKS, ids=lambda law: law.__name__)
def test_detector_of_the_guide_keeps_the_laws(check_law: Callable[..., None]) -> None:
    check_law(shown(), memory=20)


def test_detector_of_the_guide_finds_twice_the_median() -> None:
    detector = shown()(laws.SPAN, memory=5)
    detector.align(np.array([-1]))
    frames = laws._world(30, 1)
    scores = [detector.step(frame).score[0, 0] for frame in frames[:20]]
    assert np.isnan(scores[:5]).all()
    assert max(scores[5:]) < 1
    frames[25].p99_us[:] = 1e6
    assert detector.step(frames[25]).score[0, 0] >= 1


def test_every_detector_of_the_guide_can_be_written_so() -> None:
    texts = re.findall(r'^\w+ = "((?:static|burn_rate|[\w.]+:)[^"]*)"$', GUIDE, re.MULTILINE)
    assert len(texts) == 3
    assert all(parsed(text) for text in texts)
    assert [kind for kind in KINDS if f"| `{kind}` |" not in GUIDE] == []


def test_every_setting_and_reason_of_the_guide_exists() -> None:
    known = {f"DETECTION__{name.upper()}" for name in DetectionSettings.model_fields}
    known |= {f"ALERTS__{name.upper()}" for name in AlertSettings.model_fields}
    named = set(re.findall(r"\b(?:DETECTION|ALERTS)__[A-Z_]+\b", GUIDE))
    assert len(named) > 12
    assert named <= known
    assert [reason for reason in REASONS if f"| `{reason}` |" not in GUIDE] == []

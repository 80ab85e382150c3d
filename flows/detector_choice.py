"""Which detectors watch which series: from the texts of the settings to what the scorer builds."""

from __future__ import annotations

import json
import re
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from flows.setting_sources import SettingsError, variable
from operators.kernels.scoring.novelty import Novelty
from operators.kernels.scoring.panel import DetectorSpec, PanelConfig
from operators.kernels.scoring.protocol import DEFAULT, WindowSpan
from operators.kernels.scoring.rules import BurnRate, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

KNN: Final = "knn"
KINDS: Final[dict[str, Any]] = {"static": Limits, "burn_rate": BurnRate, KNN: Novelty}
"""Detectors of ours by the word that a text begins with; any other one is `module:factory`."""

DETECTOR_RULE: Final = (
    f"{', '.join(KINDS)} or `module:factory`, then `option=value` for each option, with spaces between"
)
_TEXT: Final = re.compile(r"(?P<kind>[a-z_]+|[\w.]+:\w+)(?P<options>(?:\s+\w+=\S+)*)\s*")


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """Part a text into the kind of a detector and its options.

    Args:
        text: Such as `static latency_ms=800 errors_ratio=0.05`.

    Returns:
        The kind, and the options: numbers where they are numbers, tuples of them where commas and slashes part them.

    Raises:
        ValueError: It is not such a text.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None or (":" not in match["kind"] and match["kind"] not in KINDS):
        msg = f"a detector must be {DETECTOR_RULE}; got {text!r}"
        raise ValueError(msg)
    pairs = [part.split("=", 1) for part in match["options"].split()]
    return match["kind"], {name: _value(value) for name, value in pairs}


def panel_of(detectors: Mapping[str, str], series: Mapping[str, str], span: WindowSpan) -> PanelConfig:
    """Make what the scorer is told about detectors beside the default.

    Args:
        detectors: Texts by name.
        series: Names of detectors, with commas between them, by pattern.
        span: The windows; every detector is made once, to see that it can be.

    Raises:
        SettingsError: One can't be made, or a series is given one that is not there.
    """
    choices = tuple((pattern, tuple(part.strip() for part in names.split(","))) for pattern, names in series.items())
    texts = dict(detectors)
    if any(KNN in names for _, names in choices):
        texts.setdefault(KNN, KNN)
    specs = tuple(_spec(name, text, span) for name, text in sorted(texts.items()))
    try:
        return PanelConfig(specs, choices)
    except ValueError as error:
        raise SettingsError(f"[detection.series]: {error}") from None


def _spec(name: str, text: str, span: WindowSpan) -> DetectorSpec:
    """Make one detector; the first is thrown away."""
    key = f"{variable(('detection', 'detectors', name))}={text}"
    if name == DEFAULT:
        raise SettingsError(f"{key}: `{DEFAULT}` is the detector that is always there; give this one another name")
    kind, options = parsed(text)
    try:
        factory = KINDS[kind] if kind in KINDS else _imported(kind)
        build = partial(_built, factory, options)
        build(span, None)
    except SettingsError as error:
        raise SettingsError(f"{key}: {error}") from None
    except Exception as error:  # noqa: BLE001 - a factory of somebody else's may raise anything
        raise SettingsError(f"{key}: can't be made: {type(error).__name__}: {' '.join(str(error).split())}") from None
    return DetectorSpec(name, build, f"{kind} {json.dumps(options, sort_keys=True)}", gated=kind == KNN)


def _built(factory: Any, options: dict[str, Any], span: WindowSpan, state: bytes | None) -> Any:  # noqa: ANN401
    return factory(span, state, **options)


def _imported(path: str) -> Any:  # noqa: ANN401 - what a factory is, the settings alone say
    module, _, name = path.partition(":")
    try:
        factory = getattr(import_module(module), name, None)
    except ImportError as error:
        raise SettingsError(f"`{module}` can't be imported, so there is no detector: {error}") from None
    if not callable(factory):
        raise SettingsError(f"`{module}` has no factory {name!r}, so there is no detector")
    return factory


def _value(text: str) -> Any:  # noqa: ANN401 - a number, a text, or a tuple of them
    if "," in text:
        return tuple(_value(part) for part in text.split(",") if part)
    if "/" in text:
        return tuple(_value(part) for part in text.split("/"))
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text

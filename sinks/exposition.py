"""The gauges over all series as text, fast: a page of 10,000 series is 170,000 lines.

`prometheus_client` builds a label dictionary and an escaped string for each sample, and takes seconds for such a page.
Here every label is escaped once for each series, and the lines of a family are made in one pass. The text is that of
`prometheus_client` to the byte, in both formats: for families like these they are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, Final

import numpy as np
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from operators.kernels.frames import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from operators.kernels.frames import ScoredFrame

_EXPONENT_FROM: Final = 1e6
_US_PER_S: Final = 1e6
_MS_PER_S: Final = 1e3
_TO_BASE_UNIT: Final = np.array([[1 / _MS_PER_S], [1.0], [1.0]])  # of the values of each of SIGNALS

LATENCY: Final = "tailmark_latency_seconds"
RATE: Final = "tailmark_requests_per_second"
ERRORS: Final = "tailmark_error_ratio"
SCORE: Final = "tailmark_anomaly_score"
EXPECTED: Final = "tailmark_anomaly_expected"
LOWER: Final = "tailmark_anomaly_lower"
UPPER: Final = "tailmark_anomaly_upper"

DOCUMENTATION: Final = {
    LATENCY: "Latency quantiles of the last closed window, in seconds. Not to be averaged or summed.",
    RATE: "Requests per second in the last closed window.",
    ERRORS: "Share of requests with a status of 500 or more in the last closed window.",
    SCORE: "How unusual the last closed window is; 1 or more is anomalous.",
    EXPECTED: "What was expected of the last closed window, in the signal's base unit.",
    LOWER: "Below this value the signal would be anomalous, in its base unit.",
    UPPER: "Above this value the signal would be anomalous, in its base unit.",
}
"""Families of this module in the order of the page."""

_TYPES: Final = dict.fromkeys(DOCUMENTATION, "gauge") | {LATENCY: "summary"}
# Quantiles are gauges in all but name: promtool wants the label `quantile` on nothing but a summary.


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of one family, one for each series of a shard.

    Attributes:
        family: A key of `DOCUMENTATION`.
        label: A further label and its value, the same for all; None for none.
        values: Shape (n,), float64, in base units; NaN for a series without a sample.
    """

    family: str
    label: tuple[str, str] | None
    values: NDArray[np.float64]


def samples_of(frame: ScoredFrame) -> Iterator[Samples]:
    """Take what the page shows out of a frame.

    Args:
        frame: Scored windows of one shard.

    Yields:
        Samples in base units, by family in the order of `DOCUMENTATION`.
    """
    windows = frame.windows
    count = windows.count.astype(np.float64)
    for quantile, values_us in (("0.5", windows.p50_us), ("0.9", windows.p90_us), ("0.99", windows.p99_us)):
        yield Samples(LATENCY, ("quantile", quantile), values_us / _US_PER_S)
    yield Samples(RATE, None, count * _MS_PER_S / (windows.window_end_ms - windows.window_start_ms))
    with np.errstate(invalid="ignore"):
        yield Samples(ERRORS, None, windows.errors / np.where(count > 0, count, np.nan))
    for family, matrix in (
        (SCORE, frame.score),
        (EXPECTED, frame.expected * _TO_BASE_UNIT),
        (LOWER, frame.lower * _TO_BASE_UNIT),
        (UPPER, frame.upper * _TO_BASE_UNIT),
    ):
        for signal, values in zip(SIGNALS, matrix, strict=True):
            yield Samples(family, ("signal", signal), values)


def render(frames: Sequence[ScoredFrame]) -> str:
    """Write the samples of frames as text, in the classic format as well as in OpenMetrics.

    Args:
        frames: Scored windows, one frame for each shard.

    Returns:
        Families with help and type, complete lines. OpenMetrics needs `# EOF` after the last family of the page.
    """
    lines: dict[str, list[str]] = {
        family: [f"# HELP {family} {text}\n# TYPE {family} {_TYPES[family]}\n"]
        for family, text in DOCUMENTATION.items()
    }
    for frame in frames:
        endpoints = [f'endpoint="{escaped(endpoint)}"' for endpoint in frame.windows.endpoint]
        services = [f'service="{escaped(service)}"' for service in frame.windows.service]
        for family, columns in _by_family(frame):
            # All samples of a series stand together, which OpenMetrics demands of a summary.
            lines[family] += chain.from_iterable(
                zip(*(_lines(one, endpoints, services) for one in columns), strict=True)
            )
    return "".join(line for family in lines.values() for line in family)


def families(frames: Sequence[ScoredFrame]) -> Iterator[Metric]:
    """Build the same samples as objects of `prometheus_client`, for scrapers that want names escaped their way.

    Args:
        frames: Scored windows, one frame for each shard.

    Yields:
        Families in the order of `DOCUMENTATION`.
    """
    built = {family: Metric(family, text, _TYPES[family]) for family, text in DOCUMENTATION.items()}
    for frame in frames:
        for family, columns in _by_family(frame):
            labels = [{} if one.label is None else dict([one.label]) for one in columns]
            rows = zip(*(one.values.tolist() for one in columns), strict=True)
            for service, endpoint, row in zip(frame.windows.service, frame.windows.endpoint, rows, strict=True):
                for extra, value in zip(labels, row, strict=True):
                    if not math.isnan(value):
                        built[family].add_sample(family, {"service": service, "endpoint": endpoint, **extra}, value)
    yield from built.values()


def _by_family(frame: ScoredFrame) -> Iterator[tuple[str, list[Samples]]]:
    """Group the samples of a frame by family."""
    for family, group in groupby(samples_of(frame), key=lambda samples: samples.family):
        yield family, list(group)


def _lines(samples: Samples, endpoints: list[str], services: list[str]) -> list[str]:
    """Write one line for each series, empty for one without a value; labels are in the order of their names."""
    head, middle, tail = f"{samples.family}{{", ",", "} "
    if samples.label is not None:
        name, value = samples.label
        if name < "service":
            middle = f',{name}="{value}",'
        else:
            tail = f',{name}="{value}"}} '
    rows = zip(endpoints, services, _texts(samples.values), strict=True)
    return [
        "" if text == "nan" else f"{head}{endpoint}{middle}{service}{tail}{text}\n" for endpoint, service, text in rows
    ]


def _texts(values: NDArray[np.float64]) -> list[str]:
    """Write numbers the way `prometheus_client` does; `nan` for NaN."""
    numbers = values.tolist()
    with np.errstate(invalid="ignore"):
        plain = not np.any(np.abs(values) >= _EXPONENT_FROM)
    if plain:
        return list(map(repr, numbers))
    return [_go_text(value) if abs(value) >= _EXPONENT_FROM else repr(value) for value in numbers]


def _go_text(value: float) -> str:
    """Write a large or infinite number with the exponent that Go would choose."""
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def escaped(value: str) -> str:
    """Write the value of a label as the text formats want it."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

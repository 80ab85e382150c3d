"""The fast text of the page equals what `prometheus_client` writes, to the byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from sinks.exposition import families, render
from tests.sinks.frames_for_page import many, scored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from operators.kernels.frames import ScoredFrame

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
AWKWARD = st.sampled_from(["", "\\", '"', "\n", '\\"', "a\\nb", "ünïcode/€", "x" * 256, "{}", ",=", "\\\\"])
SERIES = st.lists(st.tuples(NAMES | AWKWARD, NAMES | AWKWARD), max_size=5)
NUMBERS = st.floats() | st.sampled_from([0.0, -0.0, 999_999.0, 1e6, 1.5e6, 1e7, 1e16, 1e17, -1e6, 1e-7, 5e-324])


class Objects:
    """Frames as a collector."""

    def __init__(self, frames: Sequence[ScoredFrame]) -> None:
        self.frames = frames

    def collect(self) -> Iterator[Metric]:
        return families(self.frames)


@given(st.lists(SERIES, max_size=3), st.data())
def test_text_equals_that_of_the_library_for_any_name_and_number(
    shards: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    frames = [scored(series, seed=number) for number, series in enumerate(shards)]
    for frame in frames:
        for row in range(len(frame.windows.service)):
            frame.score[0, row] = data.draw(NUMBERS)
    assert render(frames).encode() == generate_latest(Objects(frames))
    assert render(frames).encode() + b"# EOF\n" == generate_openmetrics(Objects(frames))


def test_every_value_is_in_base_units_and_unknown_ones_have_no_sample() -> None:
    frame = scored([("silent", "/"), ("checkout", "/pay")])
    windows = frame.windows
    frame.expected[:, 1] = [250.0, 0.01, 12.5]
    frame.lower[:, 1] = [np.nan, np.nan, 7.5]
    page = {
        (sample.name, sample.labels.get("quantile", sample.labels.get("signal", ""))): sample.value
        for family in text_string_to_metric_families(render([frame]))
        for sample in family.samples
        if sample.labels["service"] == "checkout"
    }
    assert page["tailmark_latency_seconds", "0.99"] == windows.p99_us[1] / 1e6
    assert page["tailmark_requests_per_second", ""] == windows.count[1] / 60
    assert page["tailmark_error_ratio", ""] == windows.errors[1] / windows.count[1]
    assert page["tailmark_anomaly_expected", "latency"] == 0.25, "the band of latency is milliseconds in a frame"
    assert page["tailmark_anomaly_expected", "errors"] == 0.01
    assert page["tailmark_anomaly_lower", "traffic"] == 7.5
    assert ("tailmark_anomaly_lower", "latency") not in page


def test_a_silent_series_has_a_rate_of_zero_but_no_latency_and_no_error_ratio() -> None:
    names = {
        sample.name
        for family in text_string_to_metric_families(render([scored([("silent", "/")])]))
        for sample in family.samples
    }
    assert "tailmark_requests_per_second" in names
    assert not names & {"tailmark_latency_seconds", "tailmark_error_ratio"}


def test_no_line_carries_a_timestamp() -> None:
    lines = [line for line in render([scored([("a", "/x y"), ("b", "/")])]).splitlines() if not line.startswith("#")]
    assert lines
    assert all(line.rpartition("} ")[2].count(" ") == 0 for line in lines)


def test_a_large_page_is_the_one_of_the_library() -> None:
    frames = many(2000, 8)
    assert render(frames) == generate_latest(Objects(frames)).decode()

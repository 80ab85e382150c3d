"""The bridge's text page against the library that everybody uses, and names that try to break out of it."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sinks.page_server import Health, PageServer
from sinks.tally_exposition import LE, classic_bucket, families, render
from sinks.tally_page import TallyPage
from tests.dirty_log import START_MS
from tests.kernels.tally_world import RULES, TallyWorld

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from operators.kernels.tally_frame import TallyFrame

NASTY = ['"} 5\n', "\\", "%d %s %%", "\x00", "ü\u2028", "{}", "#", " "]


def last_frames(names: list[str]) -> list[TallyFrame]:
    """Frames of a few requests, one of each shard."""
    world = TallyWorld(1)
    for number, name in enumerate(names):
        fields = {"timestamp_ms": START_MS, "service": name, "endpoint": name, "latency_ms": 3.0 * number + 0.5}
        world.feed(0, [json.dumps(fields | {"status": 200 + number, "trace_id": f"t{number}"}).encode()])
    world.end()
    return world.frames


def samples(found: list[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in found
        for sample in family.samples
    }


def test_text_says_what_the_library_would_say() -> None:
    frames = last_frames(["a", "b", *NASTY])
    expected = samples(list(families(frames)))
    assert samples(list(parse_text(render(frames, openmetrics=False)))) == expected
    assert samples(list(parse_openmetrics(render(frames, openmetrics=True) + "# EOF\n"))) == expected
    assert len(expected) == 10 * (len(LE) + 3)


def test_exemplar_stands_at_the_bucket_of_its_request_in_openmetrics_alone() -> None:
    frames = last_frames(["a", *NASTY])
    assert "trace_id" not in render(frames, openmetrics=False)
    found = {}
    for family in parse_openmetrics(render(frames, openmetrics=True) + "# EOF\n"):
        for sample in family.samples:
            if sample.exemplar is not None:
                found[sample.labels["service"]] = (sample.labels["le"], sample.exemplar)
    assert set(found) == {"a", *NASTY}
    for le, exemplar in found.values():
        assert exemplar.value <= float(le) < 2 * max(exemplar.value, 2**-11)
        assert float(exemplar.timestamp) == START_MS / 1000
    assert found[NASTY[0]][1].labels == {"trace_id": "t1"}


@pytest.mark.parametrize(
    ("latency_us", "le"), [(0, LE[0]), (976, LE[0]), (977, LE[1]), (10**6, "1.0"), (10**6 + 1, "2.0"), (10**9, "+Inf")]
)
def test_request_is_in_the_first_bucket_that_is_not_below_it(latency_us: int, le: str) -> None:
    assert LE[classic_bucket(latency_us)] == le


def test_page_shows_the_latest_frame_of_each_shard_and_drops_what_ended() -> None:
    page, world = TallyPage(), TallyWorld(1, RULES)
    world.feed(0, [json.dumps({"timestamp_ms": START_MS, "service": "a", "latency_ms": 1}).encode()])
    world.feed(0, [json.dumps({"timestamp_ms": START_MS + 700_000, "service": "b", "latency_ms": 1}).encode()])
    assert world.frames[0].service == ["a"]
    page.update("shard-00", world.frames[0])
    assert 'service="a"' in page.series_text(openmetrics=False)
    page.update("shard-00", next(frame for frame in world.frames if frame.ended))
    assert 'service="a"' not in page.series_text(openmetrics=False)


def test_series_keeps_its_exemplar_on_the_page_until_it_has_another() -> None:
    page, world = TallyPage(), TallyWorld(1, RULES)

    def feed(at_ms: int, endpoint: str, **more: str) -> None:
        event = {"timestamp_ms": START_MS + at_ms, "service": "s", "endpoint": endpoint, "latency_ms": 1, **more}
        world.feed(0, [json.dumps(event).encode()])

    def exemplars() -> list[tuple[str, str]]:
        for frame in world.frames:
            page.update("shard-00", frame)
        return re.findall(r'endpoint="(\w+)",\S+ \d+ # {trace_id="(\w+)"}', page.series_text(openmetrics=True))

    feed(0, "b", trace_id="first")
    feed(10_000, "a", trace_id="other")
    feed(40_000, "b")
    feed(60_000, "b")
    assert sorted(exemplars()) == [("a", "other"), ("b", "first")]
    feed(70_000, "b", trace_id="second")
    feed(100_000, "b")
    assert sorted(exemplars()) == [("a", "other"), ("b", "second")]
    feed(800_000, "c")
    feed(900_000, "c")
    assert exemplars() == []


def test_server_chooses_the_format_that_the_scraper_asks_for(free_port: int) -> None:
    page = TallyPage()
    for number, frame in enumerate(last_frames(["a"])):
        page.update(f"shard-{number}", frame)
    server = PageServer(page, [], Health(TallyWorld(1).vitals, stalled_after_s=60), host="127.0.0.1", port=free_port)
    try:
        url = f"http://127.0.0.1:{free_port}/metrics"
        said = [
            subprocess.run(["curl", "-s", "-H", f"Accept: {accept}", url], capture_output=True, check=True).stdout
            for accept in ("text/plain", "application/openmetrics-text; version=1.0.0")
        ]
    finally:
        server.close()
    assert said[0].startswith(b"# HELP telemetry_requests_total ")
    assert said[1].startswith(b"# HELP telemetry_requests ")
    assert said[1].endswith(b"# EOF\n")

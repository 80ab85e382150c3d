"""The page over HTTP: what is on it, when it leaves, in which format, and what the probes say."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource, run_main
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from operators import vitals as flow_vitals
from operators.alert import AlertFrame
from operators.kernels.frames import Transition
from operators.vitals import PartitionVitals, ShardVitals, Vitals
from sinks.kafka import ExactlyOnceKafkaSink, KafkaOutputPartition
from sinks.page_server import Health, PageServer, PortTakenError
from sinks.prometheus import Page, PageSink
from sinks.vitals_page import VitalsCollector, lag_in_seconds
from tests.sinks.frames_for_page import END_MS, many, scored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.registry import Collector

NOW_S = 1_700_000_100.0
CLASSIC = "text/plain;version=0.0.4"
OPENMETRICS = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"


def firing(service: str, *, end_ms: int = END_MS) -> AlertFrame:
    labels = {"alertname": "LatencyAnomaly", "service": service, "endpoint": "/pay", "severity": "page"}
    alert = Transition("f" * 16, "firing", labels, {}, 0, None, end_ms, "latency", 1.0, 0.5, 2.0, flapping=False)
    return AlertFrame(end_ms, [], [alert])


def busy_vitals() -> Vitals:
    """Make vitals of a flow that has run for a while."""
    vitals = Vitals("anomaly", "telemetry.events")
    vitals.count("accepted", 900)
    vitals.count("late", 3)
    vitals.partitions[0] = PartitionVitals(
        lag_events=5, top_ms=1_700_000_095_000, watermark_ms=1_700_000_090_000, record_ms=1_700_000_096_000
    )
    vitals.partitions[1] = PartitionVitals(heartbeat_ms=1_700_000_099_000, at_end=True)
    vitals.shards += [ShardVitals(snapshot_bytes=100, series=7, folded=2), ShardVitals(snapshot_bytes=50, warming=3)]
    for source in ("0", "0", "0"):
        vitals.epoch_ended(source)
    return vitals


class Site:
    """A running page."""

    def __init__(self, page: Page | None, vitals: Vitals, *collectors: Collector, limit_s: float = 60.0) -> None:
        health = Health(vitals, stalled_after_s=limit_s)
        self.server = PageServer(page, collectors, health, host="127.0.0.1", port=0)
        self.url = f"http://127.0.0.1:{self.server.port}"

    def get(self, path: str = "/metrics", **headers: str) -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(self.url + path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def samples(self) -> dict[tuple[str, ...], float]:
        """Scrape; returns values by metric name and label values in the order of label names."""
        text = self.get()[2].decode()
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in parse_text(text)
            for sample in family.samples
        }


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(*args: Any, **options: Any) -> Site:
        made.append(Site(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.server.close()


@pytest.fixture
def full(site: Callable[..., Site]) -> Site:
    """A page with everything on it."""
    page = Page(drop_after_ms=60_000)
    page.update("shard-00", scored([("checkout", "/pay"), ("checkout", '/"quoted"\n\\'), ("search", "")]))
    page.update("shard-01", scored([("ünïcode", "/€")], seed=2))
    page.update("shard-00", firing("checkout"))
    sink = ExactlyOnceKafkaSink(client={}, flow="anomaly", topic="telemetry.windows", partitions=4)
    vitals = busy_vitals()
    return site(page, vitals, VitalsCollector(vitals, {"telemetry.windows": sink}, clock=lambda: NOW_S))


def test_the_page_has_every_metric_of_the_contract_with_its_labels(full: Site) -> None:
    text = full.get()[2].decode()
    found = {sample.name: tuple(sorted(sample.labels)) for family in parse_text(text) for sample in family.samples}
    series = ("endpoint", "service")
    expected = {
        "tailmark_latency_seconds": ("endpoint", "quantile", "service"),
        "tailmark_requests_per_second": series,
        "tailmark_error_ratio": series,
        **{
            f"tailmark_anomaly_{what}": ("endpoint", "service", "signal")
            for what in ("score", "expected", "lower", "upper")
        },
        "tailmark_alert_firing": ("alertname", "endpoint", "service", "severity"),
        "tailmark_events_total": ("flow", "outcome"),
        "tailmark_lag_events": ("partition", "topic"),
        "tailmark_lag_seconds": ("partition", "topic"),
        "tailmark_watermark_timestamp_seconds": ("partition", "topic"),
        "tailmark_heartbeat_age_seconds": ("partition",),
        "tailmark_snapshot_bytes": (),
        "tailmark_epoch_duration_seconds_bucket": ("le",),
        "tailmark_series": (),
        "tailmark_series_warming": (),
    }
    assert expected.items() <= found.items()


def test_both_formats_say_the_same_and_parse(full: Site) -> None:
    _, classic_headers, classic = full.get(Accept=CLASSIC)
    _, open_headers, openmetrics = full.get(Accept=OPENMETRICS)
    assert classic_headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert open_headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith(b"# EOF\n")

    def values(families: Any) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
        return {
            (sample.name, tuple(sorted(sample.labels.items())), sample.value)
            for family in families
            for sample in family.samples
        }

    assert values(parse_text(classic.decode())) == values(parse_openmetrics(openmetrics.decode()))


def test_a_scraper_that_wants_names_escaped_its_way_gets_them(full: Site) -> None:
    _, headers, body = full.get(Accept="application/openmetrics-text;version=1.0.0;escaping=dots")
    assert headers["Content-Type"].endswith("escaping=dots")
    assert b"tailmark__latency__seconds{" in body
    assert body.endswith(b"# EOF\n")


def test_a_compressed_page_is_the_same_page(full: Site) -> None:
    plain = full.get()
    squeezed = full.get(Accept_Encoding="gzip")
    assert squeezed[1]["Content-Encoding"] == "gzip"
    assert gzip.decompress(squeezed[2]) == plain[2]


def test_a_series_leaves_the_page_with_the_next_frame_without_it(site: Callable[..., Site]) -> None:
    page = Page(drop_after_ms=60_000)
    at = site(page, Vitals("anomaly", "events"))
    page.update("shard-00", scored([("a", "/1"), ("a", "/2")]))
    assert ("tailmark_requests_per_second", "/2", "a") in at.samples()
    page.update("shard-00", scored([("a", "/1")], end_ms=END_MS + 10_000))
    assert ("tailmark_requests_per_second", "/1", "a") in at.samples()
    assert ("tailmark_requests_per_second", "/2", "a") not in at.samples()


def test_a_shard_without_series_left_leaves_when_the_others_have_moved_on(site: Callable[..., Site]) -> None:
    page = Page(drop_after_ms=60_000)
    at = site(page, Vitals("anomaly", "events"))
    page.update("shard-00", scored([("gone", "/")]))
    page.update("shard-00", firing("gone"))
    page.update("shard-01", scored([("here", "/")], end_ms=END_MS + 60_000))
    key, alert = ("tailmark_requests_per_second", "/", "gone"), ("tailmark_alert_firing", "LatencyAnomaly", "/pay")
    assert key in at.samples()
    assert any(sample[:3] == alert for sample in at.samples())
    page.update("shard-01", scored([("here", "/")], end_ms=END_MS + 70_000))
    assert key not in at.samples()
    assert not any(sample[:3] == alert for sample in at.samples())


def test_an_alert_is_on_the_page_while_it_fires(site: Callable[..., Site]) -> None:
    page = Page(drop_after_ms=60_000)
    at = site(page, Vitals("anomaly", "events"))
    page.update("shard-00", firing("checkout"))
    assert at.samples()["tailmark_alert_firing", "LatencyAnomaly", "/pay", "checkout", "page"] == 1
    page.update("shard-00", AlertFrame(END_MS, [], []))
    assert not [key for key in at.samples() if key[0] == "tailmark_alert_firing"]


def test_vitals_are_in_base_units_and_measured_against_the_clock(full: Site) -> None:
    samples = full.samples()
    assert samples["tailmark_events_total", "anomaly", "accepted"] == 900
    assert samples["tailmark_events_total", "anomaly", "dead_letter"] == 0, "known outcomes start at zero"
    assert samples["tailmark_lag_events", "0", "telemetry.events"] == 5
    assert samples["tailmark_lag_seconds", "0", "telemetry.events"] == pytest.approx(4)
    assert samples["tailmark_lag_seconds", "1", "telemetry.events"] == 0
    assert samples["tailmark_watermark_timestamp_seconds", "0", "telemetry.events"] == 1_700_000_090
    assert samples["tailmark_heartbeat_age_seconds", "1"] == pytest.approx(1)
    assert ("tailmark_heartbeat_age_seconds", "0") not in samples
    assert samples["tailmark_snapshot_bytes",] == 150
    assert samples["tailmark_series",] == 7
    assert samples["tailmark_series_warming",] == 3
    assert samples["tailmark_epoch_duration_seconds_count",] == 2
    assert samples["tailmark_output_records_total", "written", "telemetry.windows"] == 0


def test_lag_is_the_age_of_the_last_record_while_there_is_more_to_read() -> None:
    assert lag_in_seconds(PartitionVitals(lag_events=1, record_ms=90_000), 100) == 10
    assert lag_in_seconds(PartitionVitals(lag_events=1, record_ms=190_000), 100) == 0, "clocks differ"
    assert lag_in_seconds(PartitionVitals(lag_events=0, record_ms=90_000), 100) == 0
    assert lag_in_seconds(PartitionVitals(lag_events=9, record_ms=90_000, at_end=True), 100) == 0
    assert lag_in_seconds(PartitionVitals(lag_events=1), 100) is None
    assert lag_in_seconds(PartitionVitals(record_ms=90_000, at_end=True), 100, silent=True) == 10, "is it the end?"


def test_the_page_keeps_out_of_the_registry_of_the_library(full: Site) -> None:
    assert full.get()[0] == 200
    assert not [metric.name for metric in REGISTRY.collect() if metric.name.startswith("tailmark")]
    assert b"python_gc" not in full.get()[2]
    assert isinstance(full.server._registry, CollectorRegistry)


def test_promtool_finds_nothing_to_complain_about(full: Site) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    body = full.get()[2]
    checked = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_a_taken_port_is_one_line_that_names_it(full: Site) -> None:
    port = full.server.port
    with pytest.raises(PortTakenError) as caught:
        PageServer(None, [], Health(Vitals("f", "t"), stalled_after_s=1), host="127.0.0.1", port=port)
    text = str(caught.value)
    assert text.startswith(f"port {port} of 127.0.0.1 can't be listened on (Address already in use)")
    assert "\n" not in text


def test_an_address_that_is_not_ours_is_one_line_too() -> None:
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(PortTakenError, match="can't be listened on"):
            PageServer(None, [], Health(Vitals("f", "t"), stalled_after_s=1), host=host, port=0)


def test_health_fails_when_an_epoch_stands_still_and_recovers(site: Callable[..., Site]) -> None:
    vitals = Vitals("anomaly", "events")
    at = site(None, vitals, limit_s=0.3)
    vitals.epoch_ended("0")
    assert at.get("/healthz")[0] == 200
    deadline = time.monotonic() + 30
    while at.get("/healthz")[0] == 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    status, _, body = at.get("/healthz")
    assert status == 503
    facts = json.loads(body)
    assert facts["epoch_age_seconds"] > facts["limit_seconds"]
    assert at.get("/readyz")[0] == 503
    vitals.epoch_ended("0")
    assert at.get("/healthz")[0] == 200


def test_readiness_waits_for_restored_state_and_a_small_lag(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    vitals = Vitals("anomaly", "events")
    at = site(None, vitals)
    status, _, body = at.get("/readyz")
    assert (status, json.loads(body)["restored"]) == (503, False)
    assert at.get("/healthz")[0] == 200, "starting is not being stuck"
    vitals.epoch_ended("0")
    assert at.get("/readyz")[0] == 200
    vitals.partitions[0] = PartitionVitals(lag_events=1, record_ms=1_700_000_000_000)
    assert at.get("/readyz")[0] == 503
    vitals.partitions[0].record_ms = None
    assert at.get("/readyz")[0] == 503, "nothing read yet"
    vitals.partitions[0].at_end = True
    assert at.get("/readyz")[0] == 200
    monkeypatch.setattr(flow_vitals, "SILENT_AFTER_S", 0.0)
    vitals.cluster_answered()
    assert at.get("/readyz")[0] == 503, "nobody knows how far the log goes on"


def test_other_paths_and_methods_are_refused(full: Site) -> None:
    assert full.get("/other")[0] == 404
    assert b"/metrics /healthz /readyz" in full.get("/other")[2]
    request = urllib.request.Request(full.url + "/metrics", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert caught.value.code == 405
    head = urllib.request.Request(full.url + "/metrics", method="HEAD")
    with urllib.request.urlopen(head, timeout=60) as answer:
        assert (answer.status, answer.read()) == (200, b"")


def test_the_flow_updates_the_page_while_it_is_scraped(site: Callable[..., Site]) -> None:
    page = Page(drop_after_ms=10**9)
    at = site(page, Vitals("anomaly", "events"))
    frames = many(1000, 4)
    items: list[Any] = [(f"shard-{n % 4:02d}", frames[n % 4]) for n in range(2000)]
    flow = Dataflow("page")
    op.output("page", op.input("in", flow, TestingSource(items)), PageSink(page))
    worker = threading.Thread(target=run_main, args=(flow,))
    worker.start()
    scraped = [at.get()[0]]
    while worker.is_alive():
        scraped.append(at.get()[0])
    worker.join()
    assert set(scraped) == {200}
    assert len([key for key in at.samples() if key[0] == "tailmark_requests_per_second"]) == 1000


def test_the_page_listens_on_ipv6_too() -> None:
    try:
        server = PageServer(None, [], Health(Vitals("f", "t"), stalled_after_s=60), host="::1", port=0)
    except PortTakenError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with urllib.request.urlopen(f"http://[::1]:{server.port}/healthz", timeout=60) as answer:
        assert answer.status == 200
    server.close()


def test_counts_of_a_sink_are_summed_over_its_partitions() -> None:
    sink = ExactlyOnceKafkaSink(client={}, flow="f", topic="t", partitions=2)
    for written in (3, 4):
        partition = KafkaOutputPartition.__new__(KafkaOutputPartition)
        partition.counts = type(sink.counts())(written=written)
        sink._built.append(partition)
    assert sink.counts().written == 7

"""The whole way of an alert: events in a real Kafka, the flow, a real Alertmanager, and the telephone that it rings."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import wait_for_records
from tests.live_shop import ILL_PANES, OVER_BY_PANE, SMALL_WINDOWS, Shop
from tests.real_alertmanager import CONFIG, NEEDS_ALERTMANAGER, Alertmanager, Telephone, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics

pytestmark = NEEDS_ALERTMANAGER


@pytest.fixture
def telephone() -> Iterator[Telephone]:
    telephone = Telephone()
    yield telephone
    telephone.close()


@pytest.fixture
def make_alertmanager(tmp_path: Path, telephone: Telephone) -> Iterator[Callable[..., Alertmanager]]:
    made: list[Alertmanager] = []

    def make() -> Alertmanager:
        made.append(Alertmanager(tmp_path / f"am-{len(made)}", CONFIG.format(url=telephone.url)))
        return made[-1]

    yield make
    for alertmanager in made:
        alertmanager.stop()


@pytest.fixture
def start(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> Iterator[Callable[..., FlowProcess]]:
    started: list[FlowProcess] = []

    def run(*urls: str, processes: int = 1, **more: str) -> FlowProcess:
        told = {
            **SMALL_WINDOWS,
            "ALERTMANAGER__URLS": ",".join(urls),
            "ALERTMANAGER__RESEND_MS": "2000",
            "ALERTS__RUNBOOK_URL": "https://wiki.example/{alertname}",
        }
        env = settings_for(kafka, topics, **(told | more))
        started.append(FlowProcess(env, tmp_path / "recovery", processes=processes).start().serving())
        return started[-1]

    yield run
    for flow in started:
        flow.kill()


def number_on_page(flow: FlowProcess, name: str) -> float:
    """Add up what the page of process 0 has under a name and labels that begin so."""
    url = f"http://127.0.0.1:{flow.env['TAILMARK_PROMETHEUS__PORT']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}\S* (\S+)$", text, re.MULTILINE))


def sent(flow: FlowProcess, alerts: int) -> None:
    """Wait until a flow has sent so many alerts since it started."""
    name = "tailmark_alertmanager_alerts_total{"
    until(lambda: number_on_page(flow, name) >= alerts, flow.output)


def kill(flow: FlowProcess) -> None:
    flow.signal(signal.SIGKILL)
    flow.wait()


def test_episode_is_one_page_and_one_resolve_whatever_is_killed(
    kafka: KafkaCluster,
    topics: Topics,
    telephone: Telephone,
    make_alertmanager: Callable[..., Alertmanager],
    start: Callable[..., FlowProcess],
) -> None:
    alertmanager = make_alertmanager().start()
    shop = Shop(kafka, topics, age_ms=100_000)
    # Long enough for a cluster to start on a busy machine before Alertmanager takes the alert for forgotten.
    flow = start(alertmanager.url, ALERTMANAGER__RESEND_MS="8000")
    shop.open_until(ILL_PANES.stop)
    telephone.wait_for("firing")
    [known] = alertmanager.alerts()
    kill(flow)
    flow = start(alertmanager.url, processes=2, ALERTMANAGER__RESEND_MS="8000")
    sent(flow, 1)
    shop.open_until(OVER_BY_PANE)
    pages = telephone.wait_for("firing", "resolved")
    kill(flow)
    flow = start(alertmanager.url, ALERTMANAGER__RESEND_MS="8000")
    sent(flow, 2)
    assert telephone.statuses() == ["firing", "resolved"]
    assert [(page.alertname, page.service) for page in pages] == [("LatencyAnomaly", "checkout")] * 2
    assert pages[0].starts_at_ms == pages[1].starts_at_ms
    record = json.loads(wait_for_records(kafka.client_options, topics.alerts, 2)[0].value or b"")
    assert pages[0].starts_at_ms == record["starts_at_ms"]
    assert known["labels"] == {name: value for name, value in record["labels"].items() if value}
    assert known["annotations"]["runbook_url"] == "https://wiki.example/LatencyAnomaly"
    assert known["generatorURL"] == record["annotations"]["dashboard_url"]


def test_alert_of_a_time_when_alertmanager_was_down_is_told_when_it_is_back(
    kafka: KafkaCluster,
    topics: Topics,
    telephone: Telephone,
    make_alertmanager: Callable[..., Alertmanager],
    start: Callable[..., FlowProcess],
) -> None:
    alertmanager = make_alertmanager()
    shop = Shop(kafka, topics, age_ms=100_000)
    flow = start(alertmanager.url)
    shop.open_until(ILL_PANES.stop)
    until(lambda: number_on_page(flow, 'tailmark_alertmanager_alerts_total{outcome="failed"') > 1, flow.output)
    alertmanager.start()
    telephone.wait_for("firing")
    alertmanager.stop()
    shop.open_until(OVER_BY_PANE)
    wait_for_records(kafka.client_options, topics.alerts, 2)
    kill(flow)
    alertmanager.start()
    start(alertmanager.url)
    telephone.wait_for("firing", "resolved")
    assert flow.running == []


def test_both_replicas_are_told_the_same(
    kafka: KafkaCluster,
    topics: Topics,
    telephone: Telephone,
    make_alertmanager: Callable[..., Alertmanager],
    start: Callable[..., FlowProcess],
) -> None:
    # Each for itself: what a cluster of them makes of it, so that only one rings, is Alertmanager's own business.
    first, second = make_alertmanager().start(), make_alertmanager().start()
    shop = Shop(kafka, topics, age_ms=100_000)
    flow = start(first.url, second.url)
    shop.open_until(ILL_PANES.stop)
    telephone.wait_for("firing", "firing")
    known = [{name: alert[name] for name in ("labels", "annotations", "startsAt", "generatorURL")}
             for replica in (first, second) for alert in replica.alerts()]  # fmt: skip
    assert len(known) == 2
    assert known[0] == known[1]
    sent(flow, 6)
    shop.open_until(OVER_BY_PANE)
    telephone.wait_for("firing", "firing", "resolved", "resolved")


def test_episodes_of_a_backlog_that_are_over_ring_no_telephone(
    kafka: KafkaCluster,
    topics: Topics,
    telephone: Telephone,
    make_alertmanager: Callable[..., Alertmanager],
    start: Callable[..., FlowProcess],
) -> None:
    alertmanager = make_alertmanager().start()
    Shop(kafka, topics, age_ms=3_600_000).open_until(OVER_BY_PANE)
    flow = start(alertmanager.url)
    wait_for_records(kafka.client_options, topics.alerts, 2)
    until(lambda: number_on_page(flow, "tailmark_alertmanager_stale_alerts_total") == 1, flow.output)
    contact = number_on_page(flow, "tailmark_alertmanager_last_success_timestamp_seconds")
    until(
        lambda: number_on_page(flow, "tailmark_alertmanager_last_success_timestamp_seconds") > contact + 1, flow.output
    )
    assert telephone.pages == []
    assert alertmanager.alerts() == []


def test_alert_of_a_backlog_that_is_still_open_rings_when_the_flow_has_caught_up(
    kafka: KafkaCluster,
    topics: Topics,
    telephone: Telephone,
    make_alertmanager: Callable[..., Alertmanager],
    start: Callable[..., FlowProcess],
) -> None:
    alertmanager = make_alertmanager().start()
    shop = Shop(kafka, topics, age_ms=3_600_000)
    shop.open_until(ILL_PANES.stop)
    flow = start(alertmanager.url)
    [page] = telephone.wait_for("firing")
    assert page.starts_at_ms < time.time() * 1_000 - 3_000_000
    assert number_on_page(flow, "tailmark_alertmanager_held_alerts") == 0
    shop.open_until(OVER_BY_PANE)
    telephone.wait_for("firing", "resolved")


def test_alert_that_keeps_coming_back_is_held_as_one(
    kafka: KafkaCluster,
    topics: Topics,
    telephone: Telephone,
    make_alertmanager: Callable[..., Alertmanager],
    start: Callable[..., FlowProcess],
) -> None:
    alertmanager = make_alertmanager().start()
    bursts = [begin + pane for begin in (60, 95, 120, 145) for pane in range(6)]
    shop = Shop(kafka, topics, age_ms=200_000, ill_panes=bursts)
    flow = start(alertmanager.url, ALERTS__FLAP_OPENS="2")
    shop.open_until(66)
    telephone.wait_for("firing")
    shop.open_until(90)
    telephone.wait_for("firing", "resolved")
    shop.open_until(101)
    telephone.wait_for("firing", "resolved", "firing")
    [held] = alertmanager.alerts()
    assert held["annotations"]["flapping"] == "true"
    shop.open_until(160)
    told = number_on_page(flow, "tailmark_alertmanager_alerts_total{")
    sent(flow, int(told) + 3)
    assert telephone.statuses() == ["firing", "resolved", "firing"], "two bursts later it is still the same alert"
    shop.open_until(225)
    telephone.wait_for("firing", "resolved", "firing", "resolved")

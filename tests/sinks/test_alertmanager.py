"""Delivery to a real Alertmanager: what it knows, what a person is told, and what happens when it is away."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from operators.kernels.encode import AlertRecord
from sinks.alertmanager import AlertDelivery, Endpoint, RefusedError, UnreachableError
from sinks.alertmanager_episodes import AlertEpisodes, Standing
from sinks.alertmanager_page import DeliveryCollector
from tests.real_alertmanager import CONFIG, NEEDS_ALERTMANAGER, Alertmanager, Telephone, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = NEEDS_ALERTMANAGER

RESEND_S = 2.0
PASSWORD_HASH = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
"""What bcrypt makes of `U*U`: one of its published test vectors."""


def now_ms() -> int:
    return int(time.time() * 1_000)


def transition(status: str, starts_at_ms: int, service: str = "checkout", **changes: Any) -> AlertRecord:
    fields: dict[str, Any] = {
        "schema": "alert/1",
        "fingerprint": service,
        "status": status,
        "labels": {"alertname": "LatencyAnomaly", "service": service, "endpoint": "/pay", "severity": "critical"},
        "annotations": {"summary": f"{service} is {status}", "dashboard_url": "http://localhost:3000/d/x"},
        "starts_at_ms": starts_at_ms,
        "ends_at_ms": None if status == "firing" else now_ms(),
        "window_end_ms": starts_at_ms,
        "signal": "latency",
        "value": 1.0,
        "expected": 1.0,
        "score": 2.0,
        "flapping": False,
    }
    return AlertRecord(**(fields | changes))


@pytest.fixture
def telephone() -> Iterator[Telephone]:
    telephone = Telephone()
    yield telephone
    telephone.close()


@pytest.fixture
def alertmanager(tmp_path: Path, telephone: Telephone) -> Iterator[Alertmanager]:
    replica = Alertmanager(tmp_path / "alertmanager", CONFIG.format(url=telephone.url)).start()
    yield replica
    replica.stop()


@pytest.fixture
def deliver() -> Iterator[Callable[..., tuple[AlertEpisodes, AlertDelivery]]]:
    started: list[AlertDelivery] = []

    def start(*urls: str) -> tuple[AlertEpisodes, AlertDelivery]:
        episodes = AlertEpisodes(max_age_ms=300_000)
        endpoints = [Endpoint(url, timeout_s=2.0) for url in urls]
        here = Standing(behind=False, epochs=0)
        delivery = AlertDelivery(episodes, endpoints, resend_s=RESEND_S, synced=lambda: True, standing=lambda: here)
        delivery.start()
        started.append(delivery)
        return episodes, delivery

    yield start
    for delivery in started:
        delivery.close()


def test_one_page_when_it_opens_and_one_when_it_is_over_however_often_it_is_sent(
    alertmanager: Alertmanager, telephone: Telephone, deliver: Callable[..., tuple[AlertEpisodes, AlertDelivery]]
) -> None:
    episodes, delivery = deliver(alertmanager.url)
    starts_at_ms = now_ms() - 5_000
    episodes.take(transition("firing", starts_at_ms), now_ms(), past=False)
    delivery.wake()
    telephone.wait_for("firing")
    until(lambda: delivery.replicas[0].counts.sent >= 3, lambda: "it was not sent again")
    [alert] = alertmanager.alerts()
    assert alert["labels"] == {
        "alertname": "LatencyAnomaly", "service": "checkout", "endpoint": "/pay", "severity": "critical"
    }  # fmt: skip
    assert alert["generatorURL"] == "http://localhost:3000/d/x"
    episodes.take(transition("resolved", starts_at_ms), now_ms(), past=False)
    delivery.wake()
    sent = delivery.replicas[0].counts.sent
    pages = telephone.wait_for("firing", "resolved")
    until(lambda: delivery.replicas[0].counts.sent >= sent + 2, lambda: "the end was not sent again")
    assert telephone.statuses() == ["firing", "resolved"]
    assert {page.starts_at_ms for page in pages} == {starts_at_ms}
    assert pages[1].summary == "checkout is resolved"


def test_alert_that_nobody_sends_any_more_ends_no_sooner_than_the_horizon(
    alertmanager: Alertmanager, telephone: Telephone, deliver: Callable[..., tuple[AlertEpisodes, AlertDelivery]]
) -> None:
    episodes, delivery = deliver(alertmanager.url)
    episodes.take(transition("firing", now_ms()), now_ms(), past=False)
    delivery.wake()
    telephone.wait_for("firing")
    delivery.close()
    stopped_s = time.monotonic()
    telephone.wait_for("firing", "resolved")
    assert time.monotonic() - stopped_s > 2 * RESEND_S


def test_replica_that_was_down_is_told_what_is_open_and_holds_nobody_up(
    alertmanager: Alertmanager,
    telephone: Telephone,
    deliver: Callable[..., tuple[AlertEpisodes, AlertDelivery]],
    tmp_path: Path,
) -> None:
    others_telephone = Telephone()
    other = Alertmanager(tmp_path / "other", CONFIG.format(url=others_telephone.url))
    episodes, delivery = deliver(alertmanager.url, other.url)
    began_ms = now_ms()
    episodes.take(transition("firing", began_ms, "cart"), now_ms(), past=False)
    episodes.take(transition("firing", began_ms, "checkout"), now_ms(), past=False)
    delivery.wake()
    until(lambda: len(telephone.pages) == 2, lambda: f"{telephone.pages}")
    until(lambda: delivery.replicas[1].counts.failed > 0, lambda: "the other was not tried")
    episodes.take(transition("resolved", began_ms, "cart"), now_ms(), past=False)
    until(lambda: len(telephone.pages) == 3, lambda: f"{telephone.pages}")
    other.start()
    try:
        pages = others_telephone.wait_for("firing")
    finally:
        other.stop()
        others_telephone.close()
    assert [page.service for page in pages] == ["checkout"], "the other was over by then"
    assert delivery.replicas[1].counts.succeeded_s is not None


def test_an_alert_that_alertmanager_refuses_keeps_no_other_one_from_it(
    alertmanager: Alertmanager, telephone: Telephone, deliver: Callable[..., tuple[AlertEpisodes, AlertDelivery]]
) -> None:
    episodes, delivery = deliver(alertmanager.url)
    bad = {"alertname": "LatencyAnomaly", "service": "bad", "not-a-label": "x"}
    episodes.take(transition("firing", now_ms(), "bad", labels=bad), now_ms(), past=False)
    episodes.take(transition("firing", now_ms(), "good"), now_ms(), past=False)
    delivery.wake()
    assert [page.service for page in telephone.wait_for("firing")] == ["good"]
    assert delivery.replicas[0].counts.failed > 0


def test_page_says_how_it_goes_with_each_replica_and_nothing_secret(
    alertmanager: Alertmanager, deliver: Callable[..., tuple[AlertEpisodes, AlertDelivery]], free_port: int
) -> None:
    down = f"http://me:secret@127.0.0.1:{free_port}/am"
    episodes, delivery = deliver(alertmanager.url, down)
    episodes.take(transition("firing", now_ms()), now_ms(), past=False)
    delivery.wake()
    up, gone = delivery.replicas
    until(lambda: up.counts.sent > 0 and gone.counts.failed > 0, lambda: f"{up.counts} {gone.counts}")
    samples = [sample for family in DeliveryCollector(delivery).collect() for sample in family.samples]
    values = {(s.name, s.labels.get("replica"), s.labels.get("outcome")): s.value for s in samples}
    assert values["tailmark_alertmanager_alerts_total", f"127.0.0.1:{alertmanager.port}", "sent"] > 0
    assert values["tailmark_alertmanager_alerts_total", f"127.0.0.1:{free_port}/am", "failed"] > 0
    assert values["tailmark_alertmanager_last_success_timestamp_seconds", f"127.0.0.1:{free_port}/am", None] == 0
    assert values["tailmark_alertmanager_open_alerts", None, None] == 1
    assert "secret" not in f"{samples}{gone.endpoint.name}"


def test_replica_is_asked_whether_it_listens_though_there_is_nothing_to_tell(
    alertmanager: Alertmanager, deliver: Callable[..., tuple[AlertEpisodes, AlertDelivery]]
) -> None:
    _, delivery = deliver(alertmanager.url)
    until(lambda: delivery.replicas[0].counts.succeeded_s is not None, lambda: "it was never asked")
    assert delivery.replicas[0].counts.sent == 0


def test_prefix_query_and_credentials_are_sent_as_they_are_set() -> None:
    seen: list[tuple[str, str | None]] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["Authorization"]))
            self.send_response(503 if "busy" in self.path else 401 if "closed" in self.path else 200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        Endpoint(f"http://me:se%3Acret@{host}/am/?tenant=a", 5.0).post([])
        Endpoint(f"http://{host}", 5.0, "token").post([])
        with pytest.raises(UnreachableError, match="503"):
            Endpoint(f"http://{host}/busy", 5.0).post([])
        with pytest.raises(RefusedError, match="401"):
            Endpoint(f"http://{host}/closed", 5.0).post([])
        server.shutdown()
    assert seen[:2] == [
        ("/am/api/v2/alerts?tenant=a", "Basic bWU6c2U6Y3JldA=="),
        ("/api/v2/alerts", "Bearer token"),
    ]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_replica_behind_tls_and_a_password_takes_alerts_of_those_who_have_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-keyout", key, "-out", certificate]
    made += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(made, check=True, capture_output=True)
    web = {
        "tls_server_config": {"cert_file": str(certificate), "key_file": str(key)},
        "basic_auth_users": {"me": PASSWORD_HASH},
    }
    guarded = Alertmanager(tmp_path / "guarded", CONFIG.format(url="http://127.0.0.1:1/"), web=web).start(ready=False)
    address = f"127.0.0.1:{guarded.port}"

    def post(user: str) -> None:
        Endpoint(f"https://{user}@{address}", 5.0).post([])

    def answers() -> bool:
        try:
            post("me:U%2AU")
        except UnreachableError:
            return False
        return True

    try:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        until(answers, (guarded.directory / "log").read_text)
        with pytest.raises(RefusedError, match="401"):
            post("me:wrong")
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(UnreachableError, match="certificate verify failed"):
            post("me:U%2AU")
    finally:
        guarded.stop()

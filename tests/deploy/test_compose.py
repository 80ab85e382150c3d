"""docker-compose.yml and the image: what they name exists, what they set is a setting, and the wiring works."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from cli.run import flows
from deploy.lock import IMAGE_LOCK, LOCK, NOT_IN_THE_IMAGE, document
from flows.settings import Settings, load_settings
from local.runtime import KAFKA_VERSION
from tests.conftest import PARTITIONS
from tests.deploy.compose import COMPOSE, FILE, FLOWS, OURS, ROOT, SERVICES, environ, published
from tests.deploy.monitoring import NEEDS_PROMETHEUS, Monitoring, deployed_alertmanager
from tests.flow_process import settings_for
from tests.kafka_log import wait_for_records
from tests.real_alertmanager import NEEDS_ALERTMANAGER, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics

PROMETHEUS = YAML(typ="safe").load(ROOT / "deploy" / "prometheus" / "prometheus.yml")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
ADDRESS = re.compile(r"(?:https?://)?([a-z][a-z-]*):(\d{2,5})\b")
LISTENS = {"kafka": {9092, 9094}, "prometheus": {9090}, "alertmanager": {9093}, "grafana": {3000}}


# The file


def test_file_keeps_to_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", FILE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout


def test_whatever_is_depended_on_mounted_or_built_is_there() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"], volume
        if "build" in service:
            assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_every_service_has_limits_and_a_way_to_tell_that_it_is_well() -> None:
    for name, service in SERVICES.items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits["cpus"]
        assert limits["memory"]
        if name not in {"topics", "simulator"}:
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped"
            assert published(name), name


def test_ours_run_with_no_more_rights_than_they_need() -> None:
    assert set(OURS) == {*FLOWS, "simulator"}
    for service in OURS.values():
        assert service["user"].split(":")[0] != "0"
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_versions_are_those_of_this_repository() -> None:
    assert {service["image"] for service in OURS.values()} == {f"tailmark:{PROJECT['project']['version']}"}
    assert SERVICES["kafka"]["image"] == SERVICES["topics"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


# What it says of Tailmark


def test_every_setting_is_one_of_tailmark() -> None:
    for name in OURS:
        assert load_settings(environ(name)) != Settings(), name


@pytest.mark.parametrize("flow", FLOWS)
def test_flow_is_run_scraped_and_asked_where_it_listens(flow: str) -> None:
    command = SERVICES[flow]["command"]
    assert command[:3] == ["tailmark", "run", flow]
    assert flow in flows()
    port = load_settings(environ(flow)).prometheus.port_for(flow, 0)
    assert port in published(flow)
    assert f"http://127.0.0.1:{port}/healthz" in SERVICES[flow]["healthcheck"]["test"][-1]
    [job] = [one for one in PROMETHEUS["scrape_configs"] if one["job_name"] == f"tailmark-{flow}"]
    assert job["static_configs"] == [{"targets": [f"{flow}:{port}"]}]
    # What it keeps is in a volume.
    home = SERVICES[flow]["volumes"][0].split(":")[1]
    assert command[command.index("--recovery-dir") + 1].startswith(f"{home}/")
    assert load_settings(environ("archive")).archive.path.startswith(f"{home}/")
    assert int(SERVICES[flow]["stop_grace_period"].removesuffix("s")) > 25, "longer than `--stop-timeout`"


def test_every_address_is_that_of_a_service_which_listens_there() -> None:
    listens = LISTENS | {flow: {load_settings(environ(flow)).prometheus.port_for(flow, 0)} for flow in FLOWS}
    provisioned = (ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "tailmark.yml").read_text()
    texts = [provisioned, json.dumps(PROMETHEUS), *(json.dumps(environ(name)) for name in OURS)]
    named = {(host, int(port)) for text in texts for host, port in ADDRESS.findall(text) if host != "localhost"}
    assert {("kafka", 9092), ("alertmanager", 9093), ("prometheus", 9090)} <= named
    assert [f"{host}:{port}" for host, port in named if port not in listens.get(host, ())] == []


def test_topics_are_made_for_those_who_write_to_them_from_outside() -> None:
    script = SERVICES["topics"]["command"][0]
    topics = Settings().kafka.topics
    assert f"for topic in {topics.events} {topics.truth}; do" in script
    assert f"--partitions {PARTITIONS}" in script
    assert "message.timestamp.type=LogAppendTime" in script


def test_what_grafana_is_given_is_where_it_looks() -> None:
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    provider = YAML(typ="safe").load(ROOT / "deploy" / "grafana" / "provisioning" / "dashboards" / "tailmark.yml")
    path = provider["providers"][0]["options"]["path"]
    assert mounted["./deploy/grafana/dashboards"] == path
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = environ("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy" / "grafana" / "dashboards" / home.removeprefix(f"{path}/")).is_file()


# The image


def test_image_installs_what_the_repository_locks_and_the_flows_need() -> None:
    assert IMAGE_LOCK.read_text() == document(), "run `python -m deploy.lock`"
    whole = LOCK.read_text()
    assert all(line in whole for line in IMAGE_LOCK.read_text().splitlines())
    assert "pip install --require-hashes --only-binary :all: --no-deps -r deploy/requirements.lock" in DOCKERFILE
    assert "USER 10001:10001" in DOCKERFILE


def test_image_gets_every_package_and_nothing_else_of_the_tree() -> None:
    packages = [name.removesuffix("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
    copied = re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE)
    assert copied == packages
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    files = [*re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)]
    assert sorted(name for line in files for name in line.split()) == sorted(allowed)
    assert all((ROOT / name).exists() for name in allowed)


def test_all_that_runs_in_the_image_does_without_what_is_not_in_it() -> None:
    absent = sorted(NOT_IN_THE_IMAGE | {"grafana_foundation_sdk", "altair", "pytest"})
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {absent}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import cli.main, simulator.__main__, flows.anomaly, flows.bridge, flows.archive\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


# The same wiring as processes


class Stack:
    """The services of compose as processes of this machine, on addresses and topics of a test."""

    def __init__(self, kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self._topics = settings_for(kafka, topics)
        self._kafka = kafka.bootstrap_servers
        self.alertmanager = deployed_alertmanager(tmp_path / "alertmanager")
        self.envs = {name: settings_for(kafka, topics) for name in FLOWS}
        pages = {flow: f"127.0.0.1:{env['TAILMARK_PROMETHEUS__PORT']}" for flow, env in self.envs.items()}
        self._addresses = {"kafka:9092": kafka.bootstrap_servers}
        self._addresses["alertmanager:9093"] = f"127.0.0.1:{self.alertmanager.port}"
        for flow, page in pages.items():
            self._addresses[f"{flow}:{load_settings(environ(flow)).prometheus.port_for(flow, 0)}"] = page
        self.monitoring = Monitoring(tmp_path / "prometheus", self._addresses)
        self._addresses["prometheus:9090"] = f"127.0.0.1:{self.monitoring.port}"
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def here(self, text: str) -> str:
        """Put the addresses and directories of this machine into what compose says."""
        for there, here in self._addresses.items():
            text = text.replace(there, here)
        return text.replace("/var/lib/tailmark", str(self._tmp_path / "state"))

    def start(self, name: str) -> None:
        """Start a service of ours with its own command and environment, and the topics of the test."""
        command = [self.here(part) for part in SERVICES[name]["command"]]
        program = {"tailmark": [sys.executable, "-c", "from cli.main import main; main()"], "python": [sys.executable]}
        settings = {key: self.here(value) for key, value in environ(name).items()}
        env = {**self.envs.get(name, self._topics), **settings, "PATH": "/usr/bin:/bin"}
        with (self._tmp_path / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                [*program[command[0]], *command[1:]], cwd=ROOT, env=env, stdout=log, stderr=log
            )

    def is_healthy(self, flow: str) -> bool:
        """Run the health check of a flow."""
        port = load_settings(environ(flow)).prometheus.port_for(flow, 0)
        test = [sys.executable, *SERVICES[flow]["healthcheck"]["test"][2:]]
        test[-1] = test[-1].replace(f"127.0.0.1:{port}", self._addresses[f"{flow}:{port}"])
        return subprocess.run(test, capture_output=True, timeout=20, check=False).returncode == 0

    def said(self) -> str:
        """Give what all of them wrote."""
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in self._tmp_path.glob("*.log"))

    def stop(self) -> dict[str, int]:
        """Stop what runs, and give the exit codes."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        return {name: process.wait(60) for name, process in self.running.items()}


@pytest.fixture
def stack(kafka: KafkaCluster, topics: Topics, tmp_path: Path) -> Iterator[Stack]:
    (tmp_path / "state").mkdir()
    stack = Stack(kafka, topics, tmp_path)
    yield stack
    for process in stack.running.values():
        process.kill()
    stack.monitoring.stop()
    stack.alertmanager.stop()


@NEEDS_PROMETHEUS
@NEEDS_ALERTMANAGER
def test_services_find_each_other_when_they_are_run_as_compose_runs_them(
    stack: Stack, kafka: KafkaCluster, topics: Topics
) -> None:
    stack.alertmanager.start()
    stack.monitoring.start()
    for name in ("simulator", *FLOWS):
        stack.start(name)

    def holds(expression: str, samples: int) -> None:
        until(
            lambda: len(stack.monitoring.query(expression)) >= samples,
            lambda: f"{expression}: {stack.monitoring.query(expression)}\n{stack.said()}",
        )

    holds('up{job=~"tailmark-.*|alertmanager"} == 1', 4)
    holds('tailmark_events_total{outcome="accepted"} > 0', 3)
    holds("tailmark_requests_per_second > 0", 1)
    # Written by the bridge, and not scraped from it as well.
    holds('telemetry_requests_total{code="200"} > 0', 1)
    holds('count(telemetry_requests_total{job=~".+"}) or vector(0)', 1)
    assert stack.monitoring.query('count(telemetry_requests_total{job=~".+"}) or vector(0)')[0]["value"][1] == "0"
    holds("tailmark_alertmanager_last_success_timestamp_seconds > 0", 1)
    assert wait_for_records(kafka.client_options, topics.windows, 1)
    until(lambda: all(stack.is_healthy(flow) for flow in FLOWS), stack.said)
    codes = stack.stop()
    assert {name: codes[name] for name in FLOWS} == dict.fromkeys(FLOWS, 0), stack.said()

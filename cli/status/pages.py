"""What the flows say of themselves: the pages of their processes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families

from flows.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flows.output_settings import PrometheusSettings

ANSWER_TIMEOUT_S: Final = 5.0
MISSES: Final = 2
"""Processes in a row that do not answer, after which no more are asked for."""

_WANTED: Final = (
    "tailmark_events_total",
    "tailmark_lag_",
    "tailmark_watermark_",
    "tailmark_series",
    "tailmark_alert_f",
)
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process of a flow.

    Attributes:
        flow: Name of the flow.
        process: Its number.
        page: Address of its page.
        ready: Whether it makes progress, has restored its state, and has caught up.
        restored: Whether its state is restored.
        epoch_age_s: How long its oldest epoch has been open.
        epoch_limit_s: What that may be.
        events: How many events had each outcome since it started.
        series: How many series have state in it.
        warming: How many of them are too young to be judged; None in a flow that judges none.
        lag_events: Records that it has not read, over all of its partitions.
        lag_s: How far it is behind in its worst partition; None before it has read anything.
        watermark_s: Event time up to which its slowest partition is complete, in seconds; None when there is none.
        firing: Alerts that fire in it.
    """

    flow: str
    process: int
    page: str
    ready: bool
    restored: bool
    epoch_age_s: float
    epoch_limit_s: float
    events: dict[str, int]
    series: int
    warming: int | None
    lag_events: int
    lag_s: float | None
    watermark_s: float | None
    firing: int


def read_pages(prometheus: PrometheusSettings, flows: Iterable[str]) -> list[ProcessFacts]:
    """Ask the processes of flows for their pages.

    Args:
        prometheus: Where they are.
        flows: Names of flows; those that do not answer are left out.

    Returns:
        Facts by flow and process. A process behind `MISSES` that do not answer is not found.
    """
    return [facts for flow in flows for facts in _processes(prometheus, flow)]


def page_url(prometheus: PrometheusSettings, flow: str, process: int) -> str:
    """Give the address of the page of a process, as seen from this machine.

    Raises:
        SettingsError: There is no port for it.
    """
    host = _ANY_ADDRESS.get(prometheus.host, prometheus.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{prometheus.port_for(flow, process)}"


def _processes(prometheus: PrometheusSettings, flow: str) -> list[ProcessFacts]:
    found: list[ProcessFacts] = []
    process = missed = 0
    while missed < MISSES:
        try:
            facts = _read(page_url(prometheus, flow, process), flow, process)
        except SettingsError:
            break
        if facts is None:
            missed += 1
        else:
            found.append(facts)
            missed = 0
        process += 1
    return found


def _read(url: str, flow: str, process: int) -> ProcessFacts | None:
    """Read one page; None when nobody answers there, or somebody else."""
    try:
        health = json.loads(_get(f"{url}/readyz"))
        page = _get(f"{url}/metrics").decode()
        return _facts(page, health, url, flow, process)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _facts(page: str, health: dict[str, Any], url: str, flow: str, process: int) -> ProcessFacts | None:
    """Pick what is wanted; a page with a hundred thousand series is not parsed for it."""
    lines = "\n".join(line for line in page.splitlines() if line.startswith(_WANTED))
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(f"{lines}\n"):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    events = samples.get("tailmark_events_total", [])
    if not any(labels.get("flow") == flow for labels, _ in events):
        return None

    def values(name: str) -> list[float]:
        return [value for _, value in samples.get(name, [])]

    return ProcessFacts(
        flow=flow,
        process=process,
        page=f"{url}/metrics",
        ready=bool(health["ok"]),
        restored=bool(health["restored"]),
        epoch_age_s=float(health["epoch_age_seconds"]),
        epoch_limit_s=float(health["limit_seconds"]),
        events={labels["outcome"]: int(value) for labels, value in events},
        series=int(sum(values("tailmark_series"))),
        warming=int(sum(warming)) if (warming := values("tailmark_series_warming")) else None,
        lag_events=int(sum(values("tailmark_lag_events"))),
        lag_s=max(values("tailmark_lag_seconds"), default=None),
        watermark_s=min(values("tailmark_watermark_timestamp_seconds"), default=None),
        firing=len(values("tailmark_alert_firing")),
    )


def _get(url: str) -> bytes:
    """Read an answer, whatever its status: a process that is not ready says so with 503."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310 - always http
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    return body

"""What the page of a running bridge says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families as parse_text

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 60.0


def page_of(env: dict[str, str], accept: str = "text/plain") -> str:
    url = f"http://127.0.0.1:{env['TAILMARK_PROMETHEUS__PORT']}/metrics"
    with urlopen(Request(url, headers={"Accept": accept}), timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.2)


def codes_on(page: str) -> dict[tuple[str, str, int], float]:
    return {
        (sample.labels["service"], sample.labels["endpoint"], int(sample.labels["code"])): sample.value
        for family in parse_text(page)
        for sample in family.samples
        if sample.name == "telemetry_requests_total"
    }


def samples_on(page: str, name: str) -> float:
    """Give the value of one sample, with its labels as they are written; -1 when it is not there."""
    lines = [line for line in page.splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].split()[-1]) if lines else -1.0


def lag_on(page: str) -> float:
    """Sum the records of all partitions that were not read yet."""
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("tailmark_lag_events{"))

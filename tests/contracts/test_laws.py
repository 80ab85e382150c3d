"""The laws of the house style, held over the whole chain of operators and over every kernel that has a state."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from operators.kernels.closing import OVERFLOW_ENDPOINT
from operators.kernels.episodes import Harmless, Maintenance
from operators.kernels.scoring import ScoringConfig
from operators.kernels.scoring.novelty import Novelty
from operators.kernels.scoring.panel import DetectorSpec, PanelConfig
from operators.kernels.scoring.rules import BurnRate, Limits
from operators.kernels.window_rules import WindowRules
from tests.contracts.chain import RULES, Cut, Output, Watch, run_chain
from tests.dirty_log import START_MS, Log, dirty_log
from tests.incident_log import SERVICES, incident_log
from tests.oracle import Oracle

PARTITIONS = 4
KAFKA_MS = START_MS + 100_000_000
SMALL = WindowRules(length_ms=30_000, slide_ms=5_000, series_ttl_ms=60_000, max_series=5)


def whole(panes: list[Log]) -> Log:
    """Put the panes of each partition behind each other."""
    return [[value for pane in panes for value in pane[partition]] for partition in range(PARTITIONS)]


@cache
def incidents() -> Log:
    return whole(incident_log(1, partitions=PARTITIONS, panes=135))


@cache
def straight() -> Output:
    """What the log gives when it is read as a whole by one worker that is never stopped."""
    return run_chain(incidents(), Cut(), received_ms=KAFKA_MS)


def episodes(output: Output) -> set[tuple[str, str, str]]:
    told = [json.loads(alert) for alert in output.alerts]
    return {(alert["status"], alert["labels"]["alertname"], alert["labels"]["service"]) for alert in told}


# Law 1 and 2: the log decides, and a frame is the sum of its parts.


def test_log_of_these_laws_has_everything_in_it() -> None:
    """A law that nothing could break would prove nothing."""
    output = straight()
    assert len(output.windows) >= 135 * len(SERVICES)
    for alertname, service in zip(("LatencyAnomaly", "ErrorRatioAnomaly", "ServiceSilent"), SERVICES, strict=True):
        assert {("firing", alertname, service), ("resolved", alertname, service)} <= episodes(output)


@pytest.mark.parametrize(("largest", "workers"), [(1_000_000, 2), (300, 1), (40, 2), (7, 1)])
def test_output_does_not_depend_on_batches_or_workers(largest: int, workers: int) -> None:
    output = run_chain(incidents(), Cut(largest, largest), workers=workers, received_ms=KAFKA_MS)
    assert output.windows == straight().windows
    assert output.alerts == straight().alerts


@pytest.mark.parametrize(("seed", "workers"), [(1, 1), (2, 1), (3, 2)])
def test_output_does_not_depend_on_where_the_job_was_stopped_and_resumed(
    tmp_path: Path, seed: int, workers: int
) -> None:
    cut = Cut(seed, largest=100, stop_every=20)
    output = run_chain(incidents(), cut, workers=workers, received_ms=KAFKA_MS, recovery=tmp_path)
    assert output.windows == straight().windows
    assert output.alerts == straight().alerts


WATCH = Watch(
    ScoringConfig(
        panel=PanelConfig(
            (
                DetectorSpec("limit", lambda span, state: Limits(span, state, latency_ms=300), "limit"),
                DetectorSpec("slo", lambda span, state: BurnRate(span, state, objective=0.99), "slo"),
                DetectorSpec("knn", lambda span, state: Novelty(span, state, memory_windows=50), "knn", gated=True),
            ),
            (("*", ("default", "slo")), (f"{SERVICES[0]}|*", ("limit", "knn"))),
        )
    ),
    {
        "alerts_per_day": 0.5,
        "maintenance": (Maintenance(f"{SERVICES[1]}|*", START_MS + 400_000, START_MS + 700_000),),
        "harmless": (Harmless("LatencyAnomaly", SERVICES[0], "", 150.0, 50.0),),
    },
)


@pytest.mark.parametrize(("seed", "workers"), [(4, 1), (5, 2)])
def test_chosen_detectors_and_what_is_held_back_follow_from_the_log_too(
    tmp_path: Path, seed: int, workers: int
) -> None:
    one = run_chain(incidents(), Cut(), received_ms=KAFKA_MS, watch=WATCH)
    assert one.windows != straight().windows
    assert one.alerts != straight().alerts
    cut = Cut(seed, largest=100, stop_every=20)
    other = run_chain(incidents(), cut, workers=workers, received_ms=KAFKA_MS, recovery=tmp_path, watch=WATCH)
    assert other.windows == one.windows
    assert other.alerts == one.alerts


@pytest.mark.parametrize("seed", range(3))
def test_dirty_log_with_too_many_series_gives_the_same_rows_however_it_is_cut(seed: int) -> None:
    log = dirty_log(seed, partitions=PARTITIONS, records=800, span_ms=200_000)
    one = run_chain(log, Cut(), rules=SMALL, received_ms=KAFKA_MS)
    assert any(json.loads(row)["endpoint"] == OVERFLOW_ENDPOINT for row in one.windows)
    for largest, workers in ((1, 1), (25, 2)):
        other = run_chain(log, Cut(seed, largest), workers=workers, rules=SMALL, received_ms=KAFKA_MS)
        assert other.windows == one.windows
        assert other.alerts == one.alerts
        assert other.vitals.events == one.vitals.events


DIGEST = """
import hashlib, sys
from tests.contracts.chain import Cut, run_chain
from tests.contracts.test_laws import KAFKA_MS, SMALL
from tests.dirty_log import dirty_log
out = run_chain(dirty_log(5, 4, 800, 200_000), Cut(1, 50), rules=SMALL, received_ms=KAFKA_MS)
sys.stdout.write(hashlib.sha256(b"".join([*out.windows, *out.alerts])).hexdigest())
"""


def test_output_does_not_depend_on_the_order_of_sets() -> None:
    """Python orders strings anew in each process, and so would whoever iterates over a set of names."""
    log = dirty_log(5, 4, 800, 200_000)
    here = run_chain(log, Cut(), rules=SMALL, received_ms=KAFKA_MS)
    expected = hashlib.sha256(b"".join([*here.windows, *here.alerts])).hexdigest()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", DIGEST]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout == expected, done.stderr


def test_end_of_a_job_is_no_silence() -> None:
    """A window that the end of the input closed may have lost what nobody has read yet; the last rows count as much."""
    calm = whole(incident_log(1, partitions=PARTITIONS, panes=38))
    output = run_chain(calm, Cut(), received_ms=KAFKA_MS)
    ends = {json.loads(row)["window_end_ms"] for row in output.windows}
    assert max(ends) - START_MS // 10_000 * 10_000 == 380_000 + RULES.length_ms - RULES.slide_ms
    assert output.alerts == []


# Law 4: time is data, and randomness takes a seed (what kernels may import is in test_style).


def test_kernels_draw_no_random_numbers_without_a_seed() -> None:
    drawing = {"seed", "rand", "randn", "randint", "shuffle", "sample", "uuid4", "urandom", "token_bytes"}
    kernels = sorted((Path(__file__).parents[2] / "operators" / "kernels").rglob("*.py"))
    nodes = [(path.name, node) for path in kernels for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    drawn = {(name, node.attr) for name, node in nodes if isinstance(node, ast.Attribute) and node.attr in drawing}
    unseeded = {
        name
        for name, node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("default_rng") and not node.args
    }
    assert len(kernels) > 20
    assert (drawn, unseeded) == (set(), set())


# Law 5: what is bad or late leaves by its own stream, and everything is counted once.


def test_every_item_is_counted_once_and_nothing_raises() -> None:
    log = dirty_log(11, partitions=PARTITIONS, records=1500, span_ms=400_000)
    oracle = Oracle()
    for partition, values in enumerate(log):
        for offset, value in enumerate(values):
            oracle.record(partition, offset, value, KAFKA_MS)
    output = run_chain(log, Cut(3, 60), received_ms=KAFKA_MS)
    accepted = sum(map(len, oracle.accepted.values()))
    assert output.vitals.events["accepted"] == accepted
    assert {
        (row["service"], row["endpoint"], row["window_end_ms"]): (row["count"], row["errors"])
        for row in map(json.loads, output.windows)
    } == {key: (row["count"], row["errors"]) for key, row in oracle.windows().items()}

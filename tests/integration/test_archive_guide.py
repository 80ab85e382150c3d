"""What the guide says of the archive can be typed as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operators.kernels.archive_rows import SCHEMA
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import NewRecord, produce

if TYPE_CHECKING:
    import pytest

    from tests.conftest import KafkaCluster, Topics

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "archive.md").read_text()
HOUR_MS = 3_600_000
NINE_MS = 1_795_424_400_000
REQUESTS = 600


def request(number: int) -> bytes:
    """A request of 2026-11-23, from nine to ten; every hundredth fails slowly."""
    failing = number % 100 == 99
    fields = {
        "timestamp_ms": NINE_MS + number * HOUR_MS // REQUESTS,
        "service": ("pay", "cart")[number % 2],
        "endpoint": "/x",
        "latency_ms": 900.0 + number if failing else 20.0,
        "status": 503 if failing else 200,
        "trace_id": f"t{number}",
        "user": {"plan": ("free", "paid")[number % 3 == 0]},
    }
    return json.dumps(fields).encode()


def test_examples_of_the_guide_run_and_give_what_they_say(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [
        NewRecord(request(number), partition=number % 4, timestamp_ms=NINE_MS + HOUR_MS) for number in range(REQUESTS)
    ]
    produce(kafka.client_options, topics.events, records)
    env = settings_for(kafka, topics, KAFKA__STOP_AT_END="true", ARCHIVE__PATH=str(tmp_path / "archive"))
    codes, said = FlowProcess(env, flow="flows.archive").run()
    assert codes == [0], said
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, found)
    slowest = found["slowest"].to_dicts()
    assert [(row["service"], row["requests"]) for row in slowest] == [("cart", 300), ("pay", 300)]
    assert slowest[0]["p99_ms"] > 900
    assert slowest[0]["error_ratio"] == 6 / 300
    assert found["behind"].height == 5
    assert set(found["by_plan"]["plan"]) == {"free", "paid"}
    assert found["reaches"]["events"].sum() == REQUESTS
    assert found["reaches"]["last"].to_list() == [149] * 4


def test_guide_has_every_column_and_no_other() -> None:
    table = re.search(r"^\| column \|.*?\n\n", GUIDE, re.MULTILINE | re.DOTALL)
    assert table is not None
    first_cells = [line.split("|")[1] for line in table.group().splitlines()[2:] if line]
    named = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
    assert named == [*SCHEMA, "hour", "shard"]

"""The archive flow's step ids and the archive's columns are storage formats, as those of the anomaly flow are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from flows.archive import flow
from flows.settings import load_settings
from operators.kernels.archive_rows import SCHEMA
from tests.contracts.test_storage_format import WITH_STATE, leaves
from tests.flow_process import settings_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import KafkaCluster, Topics


def test_ids_of_steps_with_state_are_frozen_in_the_archive_flow(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    env = settings_for(kafka, topics, ARCHIVE__PATH=str(tmp_path / "archive"), EVENTS__DEAD_LETTERS="true")
    graph = flow(load_settings(env))
    ids = [step_id for step_id, kind in leaves(graph.substeps) if kind in WITH_STATE]
    assert ids == ["archive.events", "archive.archive.sink", "archive.dead_letters.sink"]


def test_columns_of_the_archive_are_frozen() -> None:
    text = ["event_id", "trace_id", "region", "host", "method", "extra"]
    assert dict(SCHEMA) == {
        "timestamp_ms": pl.Int64,
        "service": pl.String,
        "endpoint": pl.String,
        "latency_ms": pl.Float64,
        "status": pl.Int16,
        **dict.fromkeys(text, pl.String),
        "late": pl.Boolean,
        "kafka_timestamp_ms": pl.Int64,
        "partition": pl.Int32,
        "offset": pl.Int64,
        "item": pl.Int32,
    }
    assert list(SCHEMA)[5:11] == text

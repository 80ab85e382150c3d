"""Write the rows that the source took out of events to the archive."""

from __future__ import annotations

import bytewax.operators as op
import polars as pl
from bytewax.dataflow import Stream, operator

from operators.kernels.archive_rows import NO_ROWS
from operators.vitals import Vitals
from sinks.parquet import ParquetSink
from sources.frame import KafkaFrame


@operator
def archive(step_id: str, up: Stream[KafkaFrame], *, sink: ParquetSink, vitals: Vitals) -> None:
    """Write every valid event once.

    Args:
        step_id: Unique name of this step.
        up: Frames whose details are rows, see `sources.archived`.
        sink: The archive.
        vitals: Where events are counted.
    """

    def rows(frame: KafkaFrame) -> list[tuple[str, pl.DataFrame]]:
        if frame.columns is None:
            # Bytewax opens a partition with its first item, and what a crash left there must not wait for an event.
            return [(f"partition-{mark.partition}", NO_ROWS) for mark in (frame.news.marks if frame.news else ())]
        vitals.count("accepted", len(frame.columns.code))
        return [(f"partition-{frame.partition}", pl.concat(frame.details))] if frame.details else []

    op.output("sink", op.flat_map("rows", up, rows), sink)

"""Write the rows that the source took out of events to the archive."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import bytewax.operators as op
import polars as pl
from bytewax.dataflow import Stream, operator

from operators.kernels.archive_rows import NO_ROWS
from operators.vitals import Vitals
from sinks.parquet import ParquetSink
from sinks.parquet_store import held_through
from sources.frame import KafkaFrame
from sources.topic import bounds_of, open_consumer, partitions_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOG: Final = logging.getLogger(__name__)
_PREFETCH_KIB: Final = 1024


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


def note_gaps(sink: ParquetSink, client: Mapping[str, Any], topic: str) -> None:
    """Say what the archive will never have, because retention deleted it before it was read.

    A recovery directory makes the source refuse to go on; without one, nobody else would notice.

    Args:
        sink: The archive, prepared.
        client: How to reach the brokers, in librdkafka's spelling.
        topic: The topic with the events.

    Raises:
        SourceError: A broker does not answer in time.
    """
    held = held_through(sink.staging)
    consumer = open_consumer(client, "tailmark-archive-gaps", _PREFETCH_KIB)
    try:
        bounds = bounds_of(consumer, topic, [number for number in partitions_of(client, topic) if number in held])
    finally:
        consumer.close()
    for number, (low, _) in sorted(bounds.items()):
        if low > held[number] + 1:
            _LOG.warning(
                "archive %s holds `%s` partition %d up to offset %d, and the log begins at %d: retention deleted the "
                "events between before they were archived",
                sink.path,
                topic,
                number,
                held[number],
                low,
            )

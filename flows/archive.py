"""Events in; a Parquet dataset by hour and shard out, each event once.

python -m bytewax.run flows.archive -r recovery-archive -s 5 -b 0
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from flows.settings import Settings, load_settings
from flows.startup import dead_letter_topic, one_line_errors, recover, serve_page, source_of, spare_the_collector
from operators.kernels.archive_rows import ArchivedEvent, CopiedKeys
from operators.vitals import Vitals
from sinks import encoding
from sinks.archive import archive, note_gaps
from sinks.kafka import ExactlyOnceKafkaSink
from sinks.parquet import ParquetSink
from sinks.parquet_page import ArchiveCollector
from sinks.publish import publish
from sinks.topics import ensure_topics
from sources.archived import archived
from sources.topic import partitions_of
from sources.topic_watch import TopicWatch

if TYPE_CHECKING:
    from sources.kafka import KafkaEventSource

FLOW: Final = "archive"
"""Name of the flow: with the names of its steps the address of its state."""

_MS_PER_S: Final = 1000


def flow(settings: Settings | None = None) -> Dataflow:
    """Wire the archive flow.

    Args:
        settings: What is set; read from the environment when None.

    Returns:
        The dataflow, ready to be run: the directories exist, the page is served, state is safe to resume from.

    Raises:
        SystemExit: 2 when a setting is impossible, 1 when Kafka, a port, the archive or the state is not usable.
    """
    with one_line_errors():
        settings = settings or load_settings()
        vitals, events = Vitals(FLOW, settings.kafka.topics.events), settings.events
        copied = CopiedKeys(events.fields, events.timestamp_unit, events.latency_unit)
        source = source_of(settings, vitals, event_type=ArchivedEvent, detail=archived(copied))
        letters = _letters(settings)
        sink = _dataset(settings)
        serve_page(settings, vitals, None, letters, more=[ArchiveCollector(sink)])
        spare_the_collector()
        return _wired(source, sink, letters, vitals)


def _wired(
    source: KafkaEventSource, sink: ParquetSink, letters: dict[str, ExactlyOnceKafkaSink], vitals: Vitals
) -> Dataflow:
    graph = Dataflow(FLOW)
    events = op.input("events", graph, source)
    archive("archive", events, sink=sink, vitals=vitals)
    for letter_sink in letters.values():
        publish("dead_letters", events, encode=encoding.dead_letters, sink=letter_sink)
    return graph


def _dataset(settings: Settings) -> ParquetSink:
    """Make the sink of the dataset, and check that the dataset is of this topic."""
    client, kafka, events, dataset = settings.client(), settings.kafka, settings.events, settings.archive
    topic = kafka.topics.events
    sink = ParquetSink(
        path=Path(dataset.path),
        partitions=len(partitions_of(client, topic)),
        shards=settings.window.shards,
        origin={
            "kafka.topics.events": topic,
            "topic id": TopicWatch(client, topic, once=True).topic_id,
            "window.shards": settings.window.shards,
            "events.fields.timestamp_ms": events.fields.get("timestamp_ms", "timestamp_ms"),
            "events.fields.service": events.fields.get("service", "service"),
            "events.timestamp_unit": events.timestamp_unit,
        },
        publish_every_s=dataset.publish_every_ms / _MS_PER_S,
        publish_rows=dataset.publish_rows,
    )
    sink.prepare()
    note_gaps(sink, client, topic)
    return sink


def _letters(settings: Settings) -> dict[str, ExactlyOnceKafkaSink]:
    """Make the sink of dead letters, where this flow is told to write them."""
    client = settings.client()
    wanted = [dead_letter_topic(settings)] if settings.events.dead_letters_from(FLOW) else []
    partitions = recover(settings, FLOW, ensure_topics(client, wanted), windows=False)
    return {
        topic.name: ExactlyOnceKafkaSink(client, FLOW, topic.name, partitions[topic.name], gather_s=topic.gather_s)
        for topic in wanted
    }

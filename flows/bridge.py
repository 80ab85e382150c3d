"""Events in; counters and histograms for Prometheus out, on a page to scrape and by remote write.

python -m bytewax.run flows.bridge -r recovery -s 5 -b 0
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from flows.settings import Settings, load_settings
from flows.startup import dead_letter_topic, one_line_errors, recover, serve_page, source_of, spare_the_collector
from operators.census import census
from operators.kernels.decode import TracedEvent
from operators.kernels.traits import traits_of
from operators.kernels.window_rules import WindowRules
from operators.shard_tallies import shard_tallies
from operators.tally import tally
from operators.vitals import Vitals
from sinks import encoding
from sinks.kafka import ExactlyOnceKafkaSink
from sinks.prometheus import PageSink
from sinks.publish import publish
from sinks.remote_write import RemoteWriteSink, remote_write
from sinks.remote_write_delivery import DeliveryRules
from sinks.remote_write_page import RemoteWriteCollector
from sinks.tally_page import TallyPage
from sinks.topics import ensure_topics
from sources.recovery import bytewax_flags

if TYPE_CHECKING:
    from collections.abc import Callable

    from sources.kafka import KafkaEventSource

FLOW: Final = "bridge"
"""Name of the flow: with the names of its steps the address of its state."""

_DELIVERED: Final = "remote-write"
_MS_PER_S: Final = 1_000


def flow(settings: Settings | None = None) -> Dataflow:
    """Wire the bridge.

    Args:
        settings: What is set; read from the environment when None.

    Returns:
        The dataflow, ready to be run: the page is served, state is safe to resume from.

    Raises:
        SystemExit: 2 when a setting is impossible, 1 when Kafka, a topic, a port or the state is not usable.
    """
    with one_line_errors():
        settings = settings or load_settings()
        vitals, page = Vitals(FLOW, settings.kafka.topics.events), TallyPage()
        source = source_of(settings, vitals, event_type=TracedEvent, detail=traits_of)
        sinks = _sinks(settings)
        receiver = _receiver(settings, source.stopping)
        told = [] if receiver is None else [RemoteWriteCollector(receiver)]
        serve_page(settings, vitals, page, sinks, more=told)
        spare_the_collector()
        return _wired(settings, source, sinks, receiver, vitals, page)


def _wired(
    settings: Settings,
    source: KafkaEventSource,
    sinks: dict[str, ExactlyOnceKafkaSink],
    receiver: RemoteWriteSink | None,
    vitals: Vitals,
    page: TallyPage,
) -> Dataflow:
    span = settings.window
    # Nothing here is as long as a window: a pane is told by itself.
    rules = WindowRules(span.slide_ms, span.slide_ms, span.series_ttl_ms, span.max_series)

    if receiver is not None:
        source = replace(source, paused=receiver.full)

    graph = Dataflow(FLOW)
    events = op.input("events", graph, source)

    rows = shard_tallies("shard", events, shards=span.shards)
    verdicts = census("census", events, rules=rules, shards=span.shards, vitals=vitals)
    tallies = tally("tally", rows, verdicts, rules=rules, vitals=vitals)

    for sink in sinks.values():
        publish("dead_letters", events, encode=encoding.dead_letters, sink=sink)
    op.output("page", tallies, PageSink(page))
    if receiver is not None:
        remote_write("remote_write", tallies, sink=receiver)
    return graph


def _sinks(settings: Settings) -> dict[str, ExactlyOnceKafkaSink]:
    """Make the sink of dead letters, when they are wanted from this flow as well."""
    client = settings.client()
    wanted = [dead_letter_topic(settings)] if settings.events.dead_letters_from(FLOW) else []
    partitions = recover(settings, FLOW, ensure_topics(client, wanted))
    return {
        topic.name: ExactlyOnceKafkaSink(client, FLOW, topic.name, partitions[topic.name], gather_s=topic.gather_s)
        for topic in wanted
    }


def _receiver(settings: Settings, stopping: Callable[[], bool]) -> RemoteWriteSink | None:
    """Make the sink of remote write; None when no receiver is set."""
    told, flags = settings.prometheus, bytewax_flags()
    if told.remote_write_url is None:
        return None
    token = told.remote_write_bearer_token
    authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
    age_ms = told.remote_write_max_age_ms
    return RemoteWriteSink(
        url=told.remote_write_url,
        rules=DeliveryRules(
            version=told.remote_write_version,
            native=told.remote_write_native,
            max_samples=told.remote_write_max_samples,
            longest_pause_s=told.remote_write_max_pause_ms / _MS_PER_S,
            max_age_s=None if age_ms is None else age_ms / _MS_PER_S,
        ),
        timeout_s=told.remote_write_timeout_ms / _MS_PER_S,
        headers={**told.remote_write_headers, **authorization},
        capacity=told.remote_write_waiting_samples,
        stopping=stopping,
        directory=None if flags is None or flags.directory is None else flags.directory / _DELIVERED,
    )

"""Events in; windows, scores, alerts, dead letters and a Prometheus page out.

python -m bytewax.run flows.anomaly -r recovery -s 5 -b 0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from flows.alert_settings import policy_of
from flows.delivery import deliver_alerts
from flows.detection_settings import scoring_of
from flows.settings import Settings, load_settings
from flows.startup import dead_letter_topic, one_line_errors, recover, serve_page, source_of, spare_the_collector
from operators.alert import alert
from operators.census import census
from operators.kernels.window_rules import WindowRules
from operators.score import score
from operators.shard import shard
from operators.vitals import Vitals
from operators.window import window
from sinks import encoding
from sinks.kafka import ExactlyOnceKafkaSink
from sinks.prometheus import Page, PageSink
from sinks.publish import publish
from sinks.topics import OutputTopic, ensure_topics

if TYPE_CHECKING:
    from operators.kernels.episodes import EpisodeConfig
    from operators.kernels.scoring import ScoringConfig
    from sources.kafka import KafkaEventSource

FLOW: Final = "anomaly"
"""Name of the flow: with the names of its steps the address of its state."""


def flow(settings: Settings | None = None) -> Dataflow:
    """Wire the anomaly flow.

    Args:
        settings: What is set; read from the environment when None.

    Returns:
        The dataflow, ready to be run: topics exist, the page is served, state is safe to resume from.

    Raises:
        SystemExit: 2 when a setting is impossible, 1 when Kafka, a topic, a port or the state is not usable.
    """
    with one_line_errors():
        settings = settings or load_settings()
        scoring, policy = scoring_of(settings), policy_of(settings)
        vitals, page = Vitals(FLOW, settings.kafka.topics.events), Page(drop_after_ms=settings.window.series_ttl_ms)
        source = source_of(settings, vitals)
        sinks = _sinks(settings)
        serve_page(settings, vitals, page, sinks, more=deliver_alerts(settings, vitals))
        spare_the_collector()
        return _wired(settings, scoring, policy, source, sinks, vitals, page)


def _wired(
    settings: Settings,
    scoring: ScoringConfig,
    policy: EpisodeConfig,
    source: KafkaEventSource,
    sinks: dict[str, ExactlyOnceKafkaSink],
    vitals: Vitals,
    page: Page,
) -> Dataflow:
    topics, span = settings.kafka.topics, settings.window
    rules = WindowRules(span.length_ms, span.slide_ms, span.series_ttl_ms, span.max_series)

    graph = Dataflow(FLOW)
    events = op.input("events", graph, source)

    rows = shard("shard", events, shards=span.shards)
    verdicts = census("census", events, rules=rules, shards=span.shards, vitals=vitals)
    windows = window("window", rows, verdicts, rules=rules, vitals=vitals)
    scores = score("score", windows, config=scoring, rules=rules, vitals=vitals)
    alerts = alert("alert", scores, config=policy, vitals=vitals)

    publish("dead_letters", events, encode=encoding.dead_letters, sink=sinks[topics.dead_letter])
    publish("windows", scores, encode=encoding.windows, sink=sinks[topics.windows])
    publish("alerts", alerts, encode=encoding.alerts, sink=sinks[topics.alerts])
    publish("alert_states", alerts, encode=encoding.alert_states, sink=sinks[topics.alerts_state])
    op.output("page", op.merge("page_items", scores, alerts), PageSink(page))
    return graph


def _sinks(settings: Settings) -> dict[str, ExactlyOnceKafkaSink]:
    """Make the sink of each output topic; missing topics are created."""
    client, topics = settings.client(), settings.kafka.topics
    headers = {
        OutputTopic(topics.windows): encoding.WINDOW_HEADERS,
        OutputTopic(topics.alerts): encoding.ALERT_HEADERS,
        OutputTopic(topics.alerts_state, compacted=True): encoding.ALERT_HEADERS,
        dead_letter_topic(settings): (),
    }
    partitions = recover(settings, FLOW, ensure_topics(client, list(headers)))
    return {
        topic.name: ExactlyOnceKafkaSink(
            client, FLOW, topic.name, partitions[topic.name], headers=own, gather_s=topic.gather_s
        )
        for topic, own in headers.items()
    }

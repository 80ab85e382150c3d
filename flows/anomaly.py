"""Events in; windows, scores, alerts, dead letters and a Prometheus page out.

python -m bytewax.run flows.anomaly -r recovery -s 5 -b 0
"""

from __future__ import annotations

from typing import Final

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from flows.settings import Settings, load_settings
from flows.startup import one_line_errors, recover, source_of
from operators.alert import alert
from operators.census import census
from operators.kernels.episodes import EpisodeConfig
from operators.kernels.scoring import ScoringConfig
from operators.kernels.windows import WindowRules
from operators.score import score
from operators.shard import shard
from operators.vitals import Vitals
from operators.window import window
from sinks.encoding import ALERT_HEADERS, WINDOW_HEADERS, alert_states_of, alerts_of, dead_letters_of, windows_of
from sinks.kafka import ExactlyOnceKafkaSink
from sinks.topics import OutputTopic, ensure_topics

FLOW: Final = "anomaly"
"""Name of the flow: with the names of its steps the address of its state."""


def flow(settings: Settings | None = None) -> Dataflow:
    """Wire the anomaly flow.

    Args:
        settings: What is set; read from the environment when None.

    Returns:
        The dataflow, ready to be run: topics exist, state is safe to resume from.

    Raises:
        SystemExit: 2 when a setting is impossible, 1 when Kafka, a topic or the state is not usable.
    """
    with one_line_errors():
        return _wired(settings or load_settings())


def _wired(settings: Settings) -> Dataflow:
    topics, span = settings.kafka.topics, settings.window
    vitals = Vitals(FLOW, topics.events)
    source = source_of(settings, FLOW, vitals)
    partitions = recover(settings, FLOW, ensure_topics(settings.client(), _outputs(settings)))
    rules = WindowRules(span.length_ms, span.slide_ms, span.series_ttl_ms, span.max_series)
    policy = EpisodeConfig.for_windows(length_ms=span.length_ms, slide_ms=span.slide_ms)

    def topic(name: str, headers: tuple[tuple[str, bytes], ...] = ()) -> ExactlyOnceKafkaSink:
        return ExactlyOnceKafkaSink(settings.client(), FLOW, name, partitions[name], headers=headers)

    graph = Dataflow(FLOW)
    events = op.input("events", graph, source)
    rows = shard("shard", events, shards=span.shards)
    verdicts = census("census", events, rules=rules, shards=span.shards, vitals=vitals)
    windows = window("window", rows, verdicts, rules=rules, vitals=vitals)
    scored = score(
        "score", windows, config=ScoringConfig(), slide_ms=span.slide_ms, length_ms=span.length_ms, vitals=vitals
    )
    alerts = alert("alert", scored, config=policy, vitals=vitals)

    dead_letters = op.flat_map("dead_letters_of", events, dead_letters_of)
    window_records = op.flat_map_batch("windows_of", scored, windows_of(partitions[topics.windows]))
    alert_records = op.flat_map_batch("alerts_of", alerts, alerts_of(partitions[topics.alerts]))
    alert_states = op.flat_map_batch("alert_states_of", alerts, alert_states_of(partitions[topics.alerts_state]))
    op.output("dead_letters", dead_letters, topic(topics.dead_letter))
    op.output("windows", window_records, topic(topics.windows, WINDOW_HEADERS))
    op.output("alerts", alert_records, topic(topics.alerts, ALERT_HEADERS))
    op.output("alert_states", alert_states, topic(topics.alerts_state, ALERT_HEADERS))
    return graph


def _outputs(settings: Settings) -> list[OutputTopic]:
    topics = settings.kafka.topics
    return [
        OutputTopic(topics.windows),
        OutputTopic(topics.alerts),
        OutputTopic(topics.alerts_state, compacted=True),
        OutputTopic(topics.dead_letter, holds=topics.events),
    ]

"""Events in; windows, scores, alerts, dead letters and a Prometheus page out.

Run it with `python -m bytewax.run flows.anomaly`.
"""

from __future__ import annotations

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from flows.settings import Settings, load_settings
from operators.alert import alert
from operators.kernels.episodes import EpisodeConfig
from operators.kernels.intake import IntakeRules
from operators.kernels.scoring import ScoringConfig
from operators.kernels.windows import WindowRules
from operators.score import score
from operators.shard import shard
from operators.vitals import Vitals
from operators.window import window
from sinks.encoding import ALERT_HEADERS, WINDOW_HEADERS, alert_states_of, alerts_of, dead_letters_of, windows_of
from sinks.kafka import ExactlyOnceKafkaSink
from sinks.topics import OutputTopic, ensure_topics
from sources.drain import Drain
from sources.kafka import KafkaEventSource

FLOW = "anomaly"


def flow(settings: Settings | None = None) -> Dataflow:
    settings = settings or load_settings()
    drain = Drain()
    drain.on_signals()
    client = settings.client()
    w = settings.window
    topics = settings.kafka.topics
    vitals = Vitals(FLOW, topics.events)
    parts = ensure_topics(client, [OutputTopic(topics.windows), OutputTopic(topics.alerts), OutputTopic(topics.alerts_state, compacted=True), OutputTopic(topics.dead_letter, holds=topics.events)])
    source = KafkaEventSource(
        client, topics.events, settings.kafka.group_for(FLOW), settings.kafka.source_shards, w.shards,
        IntakeRules(w.slide_ms, w.allowed_lateness_ms, settings.events.max_future_ms), w.idle_after_ms,
        settings.events.max_bytes, settings.kafka.stop_at_end, lambda: drain.requested, vitals,
    )
    def sink(topic, headers=()):
        return ExactlyOnceKafkaSink(client, FLOW, topic, parts[topic], headers=headers)
    f = Dataflow(FLOW)
    events = op.input("events", f, source)
    dead = op.flat_map("dead_letters", events, dead_letters_of)
    op.output("dead_letter", dead, sink(topics.dead_letter))
    s = shard("shard", events, shards=w.shards)
    wd = window("window", s, rules=WindowRules(w.length_ms, w.slide_ms, w.series_ttl_ms, w.max_series), vitals=vitals)
    sc = score("score", wd, config=ScoringConfig(), slide_ms=w.slide_ms, length_ms=w.length_ms, vitals=vitals)
    al = alert("alert", sc, config=EpisodeConfig(length_ms=w.length_ms, slide_ms=w.slide_ms), vitals=vitals)
    op.output("windows", op.flat_map_batch("encode_windows", sc, windows_of(parts[topics.windows])), sink(topics.windows, WINDOW_HEADERS))
    op.output("alerts", op.flat_map_batch("encode_alerts", al, alerts_of(parts[topics.alerts])), sink(topics.alerts, ALERT_HEADERS))
    op.output("alerts_state", op.flat_map_batch("encode_alert_states", al, alert_states_of(parts[topics.alerts_state])), sink(topics.alerts_state, ALERT_HEADERS))
    return f

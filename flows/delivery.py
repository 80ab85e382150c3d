"""Wires the delivery of alerts: from what the flow committed to its topics, to every Alertmanager that is set."""

from __future__ import annotations

import atexit
import time
from typing import TYPE_CHECKING, Final

from sinks.alertmanager import AlertDelivery, Endpoint
from sinks.alertmanager_episodes import AlertEpisodes, Standing
from sinks.alertmanager_log import AlertLog
from sinks.alertmanager_page import DeliveryCollector
from sinks.page_server import READY_LAG_S
from sinks.vitals_page import largest_lag_s
from sources.recovery import bytewax_flags

if TYPE_CHECKING:
    from flows.settings import Settings
    from operators.vitals import Vitals

_MS_PER_S: Final = 1_000
_LAST_READ_S: Final = 2.0


def deliver_alerts(settings: Settings, vitals: Vitals) -> list[DeliveryCollector]:
    """Tell every Alertmanager of the alerts of a flow until the process ends; only under `python -m bytewax.run`.

    Process 0 of a cluster does it for all: the topics tell it everything, and when it dies, so do the others.

    Args:
        settings: Where the topics and the replicas are.
        vitals: How the flow is doing: alerts of long ago wait until it has caught up.

    Returns:
        What the page says of it; empty when nothing is delivered here.
    """
    flags, told = bytewax_flags(), settings.alertmanager
    if flags is None or flags.member.process != 0 or not told.urls:
        return []
    episodes = AlertEpisodes(max_age_ms=told.max_age_ms)
    delivery = AlertDelivery(
        episodes,
        [Endpoint(url, told.timeout_ms / _MS_PER_S, told.bearer_token) for url in told.urls],
        resend_s=told.resend_ms / _MS_PER_S,
        synced=lambda: log.synced,
        standing=lambda: _standing(vitals),
    )
    topics = settings.kafka.topics
    log = AlertLog(
        settings.client(),
        f"{vitals.flow}.alertmanager",
        (topics.alerts, topics.alerts_state),
        episodes,
        changed=delivery.wake,
    )
    log.start()
    delivery.start()

    def finish() -> None:
        log.close(_LAST_READ_S)
        delivery.close()

    atexit.register(finish)
    return [DeliveryCollector(delivery)]


def _standing(vitals: Vitals) -> Standing:
    """Tell how far a flow has come; its sources, which each count their epochs, are never more than one apart."""
    partitions = list(vitals.partitions.values())
    read = bool(partitions) and all(one.at_end or one.record_ms is not None for one in partitions)
    lag_s = largest_lag_s(vitals, time.time()) if read else None
    behind = None if lag_s is None else lag_s > READY_LAG_S
    return Standing(behind, sum(vitals.epoch_counts) / max(len(vitals.sources), 1))

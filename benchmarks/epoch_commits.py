"""Runs a flow as `python -m bytewax.run` does, its windows committed an epoch at a time: what was not chosen."""

from __future__ import annotations

import runpy
from typing import Any

import flows.anomaly
from sinks.kafka import ExactlyOnceKafkaSink


def _sink(client: Any, flow: str, topic: str, partitions: int, **options: Any) -> ExactlyOnceKafkaSink:  # noqa: ANN401 - as they come
    """Build a sink, that of the windows with a transaction an epoch."""
    if topic.endswith(".windows"):
        options["gather_s"] = None
    return ExactlyOnceKafkaSink(client, flow, topic, partitions, **options)


if __name__ == "__main__":
    flows.anomaly.ExactlyOnceKafkaSink = _sink  # type: ignore[assignment,misc]
    runpy.run_module("bytewax.run", run_name="__main__", alter_sys=True)

"""Encode a stream and write it to a topic, exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from sinks.encoding import Routed
from sinks.kafka import ExactlyOnceKafkaSink

X = TypeVar("X")


@operator
def publish(
    step_id: str, up: Stream[X], *, encode: Callable[[Sequence[X], int], list[Routed]], sink: ExactlyOnceKafkaSink
) -> None:
    """Write what a stream says to a topic.

    Args:
        step_id: Unique name of this step.
        up: Frames.
        encode: Turns frames into records, given the number of partitions; all frames that are there are encoded
            together.
        sink: The topic.
    """

    def encode_batch(frames: list[X]) -> list[Routed]:
        return encode(frames, sink.partitions)

    op.output("sink", op.flat_map_batch("encode", up, encode_batch), sink)

"""What every flow does before it reads anything, and how it says in one line that it can't."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from flows.settings import SettingsError
from operators.kernels.codec import StateError
from operators.kernels.decode import Event
from operators.kernels.intake import IntakeRules
from operators.kernels.mapping import mapped_decoder
from operators.vitals import stalled_after_s
from sinks.page_server import Health, PageServer, SeriesPage
from sinks.topics import OutputTopic
from sinks.vitals_page import VitalsCollector
from sources.drain import Drain
from sources.errors import FlowError
from sources.kafka import Detail, KafkaEventSource
from sources.recovery import bytewax_flags, recovery_failure, recovery_of_run
from sources.topic import partitions_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from prometheus_client.registry import Collector

    from flows.settings import Settings
    from operators.vitals import Vitals
    from sinks.kafka import ExactlyOnceKafkaSink

GARBAGE_THRESHOLD: Final = 500_000
"""New containers after which Python looks for garbage among them: more than there ever are in one read of the log."""

LETTERS_GATHER_S: Final = 0.5
"""How long dead letters wait for more of them: nobody is woken by one, and they come in crowds."""

EXIT_FAILURE: Final = 1
EXIT_BAD_SETTINGS: Final = 2

_PANIC: Final = "PanicException"
_PEER_ENDED: Final = "another worker of this cluster ended, and its log says why; this process ends too"

_OURS: Final = (SettingsError, FlowError, StateError)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can mend into one line on stderr: exit 2 for bad settings, 1 for anything else.

    What happens later, while the flow runs, gets the same line: Bytewax passes it on wrapped in an error of its own.
    """
    if bytewax_flags() is not None:
        sys.excepthook = _explain
    try:
        yield
    except _OURS as error:
        _say(error)
        raise SystemExit(EXIT_BAD_SETTINGS if isinstance(error, SettingsError) else EXIT_FAILURE) from None


def _explain(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print an uncaught error, one line when it is ours, all of it when it is a bug; and end the process at once.

    It is called when the error is raised, see `operators.reporting`. Were it passed on, Bytewax would print forty lines
    of Rust below, and end with whatever code its threads come to. What isn't committed is done again, as after any
    crash.
    """
    causes = _causes(error)
    ours = [found for cause in causes if (found := cause if isinstance(cause, _OURS) else recovery_failure(cause))]
    if ours:
        _say(ours[0])
    elif kind.__name__ == _PANIC:
        print(f"tailmark: {_PEER_ENDED}", file=sys.stderr)  # noqa: T201 - as below
    else:
        sys.__excepthook__(kind, error, traceback)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_FAILURE)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _say(error: BaseException) -> None:
    print(f"tailmark: {error}", file=sys.stderr)  # noqa: T201 - the one line that the person on call reads


def spare_the_collector() -> None:
    """Let Python look for garbage in cycles a hundred times less often than it does by itself.

    Every record of Kafka is an object that the collector looks through, and what a flow keeps for its series is never
    garbage: by default a fifth of all time goes into the search. The flow itself makes no cycles; libraries make few.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


def source_of(
    settings: Settings, vitals: Vitals, *, event_type: type[Event] = Event, detail: Detail | None = None
) -> KafkaEventSource:
    """Make the source of a flow, which ends cleanly on SIGTERM and SIGINT under `python -m bytewax.run`.

    Args:
        settings: Where the events are, and what is accepted.
        vitals: Where progress is noted.
        event_type: What an event becomes.
        detail: What the flow wants to know of events beyond the columns.

    Returns:
        The source.

    Raises:
        SourceError: Kafka does not answer, or there is no topic to read.
    """
    client, kafka, span, events = settings.client(), settings.kafka, settings.window, settings.events
    partitions_of(client, kafka.topics.events)
    drain = Drain()
    if bytewax_flags() is not None:
        drain.on_signals()
    return KafkaEventSource(
        client=client,
        topic=kafka.topics.events,
        group_id=kafka.group_for(vitals.flow),
        sources=kafka.source_shards,
        shards=span.shards,
        rules=IntakeRules(span.slide_ms, span.allowed_lateness_ms, events.max_future_ms),
        idle_after_ms=span.idle_after_ms,
        max_bytes=events.max_bytes,
        stop_at_end=kafka.stop_at_end,
        stopping=lambda: drain.requested,
        vitals=vitals,
        decode_event=mapped_decoder(events.fields, events.timestamp_unit, events.latency_unit, event_type),
        event_type=event_type,
        detail=detail,
    )


def recover(
    settings: Settings, flow: str, output_partitions: Mapping[str, int], *, windows: bool = True
) -> Mapping[str, int]:
    """Make the recovery directory that Bytewax was given safe to resume from.

    Args:
        settings: Those that the state depends on are written beside it, and must not change.
        flow: Name of the flow.
        output_partitions: Partitions of each output topic now.
        windows: Whether the state is of windows, whose length and slide it then depends on.

    Returns:
        Partitions of each output topic to write to: those it had when the state began.

    Raises:
        RecoveryError: The flow must not start on this directory.
    """
    span, kafka = settings.window, settings.kafka
    recovery = recovery_of_run(
        settings={
            "flow": flow,
            "kafka.topics.events": kafka.topics.events,
            "kafka.source_shards": kafka.source_shards,
            "window.shards": span.shards,
            **({"window.length_ms": span.length_ms, "window.slide_ms": span.slide_ms} if windows else {}),
        },
        constants=output_partitions,
    )
    return output_partitions if recovery is None else recovery.constants


def serve_page(
    settings: Settings,
    vitals: Vitals,
    page: SeriesPage | None,
    sinks: Mapping[str, ExactlyOnceKafkaSink],
    *,
    more: Sequence[Collector] = (),
) -> None:
    """Serve the Prometheus page and the health of this process until it ends; only under `python -m bytewax.run`.

    Args:
        settings: Where to listen.
        vitals: How the flow is doing.
        page: Its series and alerts; None for a flow that has none.
        sinks: Its Kafka sinks, by topic.
        more: What else is on the page.

    Raises:
        OutputError: The port is taken.
    """
    flags = bytewax_flags()
    if flags is None:
        return
    PageServer(
        page,
        [VitalsCollector(vitals, sinks), *more],
        Health(vitals, stalled_after_s=stalled_after_s(flags.snapshot_interval_s or 0.0)),
        host=settings.prometheus.host,
        port=settings.prometheus.port_for(vitals.flow, flags.member.process),
    )


def dead_letter_topic(settings: Settings) -> OutputTopic:
    """Describe the topic that rejected records go to."""
    topics = settings.kafka.topics
    return OutputTopic(topics.dead_letter, holds=topics.events, gather_s=LETTERS_GATHER_S)

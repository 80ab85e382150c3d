"""What stops a flow at its edges, as one line for the person who runs it."""

from __future__ import annotations


class FlowError(RuntimeError):
    """Something outside that the flow can't go on without; the message is one line and says what to do."""


class SourceError(FlowError):
    """The input can't be read, and going on would lose events."""


class MissingTopicError(SourceError):
    """There is no such topic, or this user may not see it."""


class OutputError(FlowError):
    """The output can't be written."""


class ClusterUnavailableError(FlowError):
    """Kafka does not answer, or does not let us in."""

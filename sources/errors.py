"""What goes wrong at the edges, as one line for the person who runs the flow."""

from __future__ import annotations


class SourceError(RuntimeError):
    """The input can't be read, and going on would lose events; the message says what to do."""

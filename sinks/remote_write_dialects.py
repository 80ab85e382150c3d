"""What differs between remote write 1.0 and 2.0: how labels are written, and in which fields what stands.

1.0 writes the labels of a series out; 2.0 refers to a table of symbols in the request, and tells for each series what
kind of metric it is and since when it counts.

Sources: https://prometheus.io/docs/specs/remote_write_spec/ and https://prometheus.io/docs/specs/remote_write_spec_2_0/.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias

from sinks.remote_write_wire import field, size_of, varint

Version: TypeAlias = Literal["1.0", "2.0"]

COUNTER: Final = 1
HISTOGRAM: Final = 3
"""Types of metrics in 2.0."""


class Dialect(Protocol):
    """How one request is written; a new one for each request.

    Attributes:
        series_tag: Number and type of the field that a series is in.
        exemplar_tag: Those of an exemplar of a series.
        histogram_tag: Those of a native histogram of a series.
    """

    series_tag: bytes
    exemplar_tag: int
    histogram_tag: int

    def label(self, name: str, value: str) -> bytes:
        """Write one label; several in the order of their names, one behind the other, are the labels of a series."""

    def labels(self, joined: bytes) -> bytes:
        """Make the field of a series, or of an exemplar, of its labels."""

    def start(self, tag: bytes, started_ms: int) -> bytes:
        """Write since when a sample counts, into a sample or a histogram, where its field has this tag."""

    def about(self, kind: int, help_text: str, started_ms: int) -> bytes:
        """Write what a series is, at its end."""

    def head(self) -> bytes:
        """Write what a request begins with, after all its series were written."""


class Dialect1:
    """Remote write 1.0."""

    series_tag = b"\x0a"
    exemplar_tag = 0x1A
    histogram_tag = 0x22

    def __init__(self) -> None:
        """Begin a request."""
        self._labels: dict[tuple[str, str], bytes] = {}

    def label(self, name: str, value: str) -> bytes:
        """Write one label, as a whole message."""
        found = self._labels.get((name, value))
        if found is None:
            found = field(0x0A, field(0x0A, name.encode()) + field(0x12, value.encode()))
            self._labels[name, value] = found
        return found

    def labels(self, joined: bytes) -> bytes:
        """Labels are fields of a series already."""
        return joined

    def start(self, tag: bytes, started_ms: int) -> bytes:  # noqa: ARG002 - 1.0 has no place for it
        """Write nothing."""
        return b""

    def about(self, kind: int, help_text: str, started_ms: int) -> bytes:  # noqa: ARG002 - likewise
        """Write nothing."""
        return b""

    def head(self) -> bytes:
        """A request begins with its first series."""
        return b""


class Dialect2:
    """Remote write 2.0."""

    series_tag = b"\x2a"
    exemplar_tag = 0x22
    histogram_tag = 0x1A

    def __init__(self) -> None:
        """Begin a request with the symbol that stands for nothing."""
        self._symbols: dict[str, bytes] = {"": b"\0"}
        self._labels: dict[tuple[str, str], bytes] = {}

    def label(self, name: str, value: str) -> bytes:
        """Write one label, as two references."""
        found = self._labels.get((name, value))
        if found is None:
            found = self._labels[name, value] = self._symbol(name) + self._symbol(value)
        return found

    def labels(self, joined: bytes) -> bytes:
        """References are packed into one field."""
        return b"\x0a" + size_of(len(joined)) + joined

    def start(self, tag: bytes, started_ms: int) -> bytes:
        """Write the start where the newest receivers read it."""
        return tag + varint(started_ms)

    def about(self, kind: int, help_text: str, started_ms: int) -> bytes:
        """Write type and help, and the start where older receivers read it."""
        metadata = bytes((0x08, kind, 0x18)) + self._symbol(help_text)
        return field(0x2A, metadata) + b"\x30" + varint(started_ms)

    def head(self) -> bytes:
        """Write the symbols."""
        return b"".join([field(0x22, symbol.encode()) for symbol in self._symbols])

    def _symbol(self, text: str) -> bytes:
        found = self._symbols.get(text)
        if found is None:
            found = self._symbols[text] = varint(len(self._symbols))
        return found


DIALECTS: Final[dict[Version, type[Dialect1 | Dialect2]]] = {"1.0": Dialect1, "2.0": Dialect2}

"""From the bytes of Kafka records to typed events; what can't be an event is rejected with a reason.

One `msgspec` call a record checks types and ranges at the speed of C. A record holds one event, a JSON array of events,
or NDJSON; only what fails the first, fast attempt is looked at more closely.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, TypeAlias, cast

import msgspec
import numpy as np

from operators.kernels.buckets import MAX_LATENCY_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

MAX_KNOWN_FLAWS: Final = 10_000
"""How many messages of a decoder are remembered; each says where in its record the mistake is."""

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that it can't decode."""

YEAR_2000_MS: Final = 946_684_800_000
"""Earliest event time: below it stand seconds that were sent as milliseconds."""

_LATEST_MS: Final = 1 << 61
_RAW: Final = msgspec.json.Decoder(msgspec.Raw).decode
_RAW_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
# Possessive, and with or without its end: a string that never ends must not be tried in every other way as well.
_MARKS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[][{},]', re.DOTALL).finditer
_UNFINISHED: Final = (b"[", b"{", b",")
"""How a line ends that the next one goes on with."""

Stage = Literal["decode", "validate", "process"]
Reason = Literal[
    "empty_value",
    "too_large",
    "malformed_json",
    "invalid_utf8",
    "too_deep",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "wrong_length",
    "timestamp_too_old",
    "timestamp_in_future",
]
"""Why a record or item is rejected: the closed set of `dlq.error.reason`."""

DecodeEvent: TypeAlias = "Callable[[bytes], Event]"


class Event(msgspec.Struct, gc=False):
    """One request as a producer reports it, in the contract's own names and units.

    A missing `service` is `""` and a missing `latency_ms` is -1.0: both are only allowed to a heartbeat.
    """

    timestamp_ms: Annotated[int, msgspec.Meta(ge=YEAR_2000_MS, le=_LATEST_MS)]
    service: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = ""
    latency_ms: Annotated[float, msgspec.Meta(ge=0, le=MAX_LATENCY_MS)] = -1.0
    endpoint: Annotated[str, msgspec.Meta(max_length=256)] = ""
    status: Annotated[int, msgspec.Meta(ge=100, le=599)] = 200
    heartbeat: bool = False


class TracedEvent(Event, gc=False):
    """An event with the names that a producer gave to it, for flows that pass them on; of any type, None without."""

    event_id: Any = None
    trace_id: Any = None


class Flaw(NamedTuple):
    """What is wrong with a record or an item.

    Attributes:
        stage: `decode` when it isn't JSON of the right shape, `validate` when a field breaks a rule.
        reason: One word of a closed set.
        message: What is wrong, for a person.
    """

    stage: Stage
    reason: Reason
    message: str


class Reject(msgspec.Struct, frozen=True, order=True, gc=False):
    """A record, or one item of it, that is no event; in log order when sorted.

    Attributes:
        record: Index of the record in the batch.
        item: Index of the item in the record's array or lines; None when the whole record is rejected.
        value: The rejected bytes, unchanged; None for a null value.
        flaw: What is wrong.
    """

    record: int
    item: int | None
    value: bytes | None
    flaw: Flaw


_NULL: Final = Flaw("decode", "empty_value", "the value is null")
_EMPTY: Final = Flaw("decode", "empty_value", "the value is empty")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The events of a batch of records, in log order.

    Attributes:
        events: All events; within a record in the order of its items.
        counts: Shape (records,), int64: how many events each record gave; None when each gave exactly one.
        rejects: What was no event.
    """

    events: list[Event]
    counts: NDArray[np.int64] | None
    rejects: list[Reject]


class EventDecoder:
    """Decodes batches of record values."""

    def __init__(
        self, *, max_bytes: int, decode_event: DecodeEvent | None = None, event_type: type[Event] = Event
    ) -> None:
        """Prepare the decoders.

        Args:
            max_bytes: Largest record value that is looked into.
            decode_event: How one JSON object becomes an event; raises `msgspec.DecodeError` when it doesn't. The
                contract's own fields when None.
            event_type: What an event becomes when `decode_event` is None.
        """
        self._max_bytes = max_bytes
        own = msgspec.json.Decoder(event_type)
        self._event = decode_event or own.decode
        # Foreign events have no decoder that takes many at once.
        self._array = msgspec.json.Decoder(list[event_type]).decode if decode_event is None else None  # type: ignore[valid-type]
        self._lines = own.decode_lines if decode_event is None else None
        self._known: dict[str, Flaw] = {}

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Decode one batch.

        Args:
            values: The record values, in log order.

        Returns:
            Events and rejects; no input raises.
        """
        undecodable = self._undecodable(values)
        decodable = cast("list[bytes]", list(values))
        for record in undecodable:
            decodable[record] = b""
        events: list[Event] = []
        rejects: list[Reject] = []
        uneven: dict[int, int] = {}
        record = seen = 0
        remaining = iter(decodable)
        while True:
            try:
                events.extend(map(self._event, remaining))
            except UNDECODABLE as error:
                # extend() keeps what came before the failure, so its length tells which record failed.
                record += len(events) - seen
                while True:
                    items, bad = self._look_closer(record, values[record], undecodable.get(record), error)
                    uneven[record] = len(items)
                    events += items
                    rejects += bad
                    record += 1
                    # Arrays come one after the other: the next one need not fail as a single event first.
                    if record == len(values) or decodable[record][:1] != b"[":
                        break
                    next(remaining)
                seen = len(events)
            else:
                return Decoded(events, _counts(len(values), uneven) if uneven else None, rejects)

    def _undecodable(self, values: Sequence[bytes | None]) -> dict[int, Flaw]:
        """Find the records that can't be handed to the JSON decoder: null, too large, or not UTF-8 throughout."""
        found: dict[int, Flaw] = {}
        present = cast("Sequence[bytes]", values)
        # Scans of the whole batch cost a fraction of a call for each record.
        try:
            whole = b"\n".join(present)
        except TypeError:
            found = {i: _NULL for i, value in enumerate(values) if value is None}
            present = [value or b"" for value in values]
            whole = b"\n".join(present)
        if len(whole) > self._max_bytes:
            for i, value in enumerate(present):
                if len(value) > self._max_bytes:
                    message = f"the value has {len(value)} bytes, more than events.max_bytes ({self._max_bytes})"
                    found[i] = Flaw("decode", "too_large", message)
        # The JSON decoder skips unknown fields without looking at their encoding.
        if _utf8_error(whole) is None:
            return found
        for i, plain in enumerate(map(bytes.isascii, present)):
            if not plain and i not in found and (why := _utf8_error(present[i])) is not None:
                found[i] = Flaw("decode", "invalid_utf8", why)
        return found

    def _look_closer(
        self, record: int, value: bytes | None, flaw: Flaw | None, error: Exception
    ) -> tuple[list[Event], list[Reject]]:
        """Decode a record that is not one good event; `error` says why, unless it is an array."""
        text = (value or b"").strip()
        unreadable = flaw is not None and flaw.reason != "invalid_utf8"
        if unreadable or (text[:1] != b"[" and b"\n" not in text):
            return [], [Reject(record, None, value, flaw or self._flaw(error, text))]
        if flaw is None and (whole := self._all_at_once(text)) is not None:
            return whole, []
        items = split_items(text)
        if items is None:
            return [], [Reject(record, None, value, flaw or _array_flaw(text) or self._flaw(error, text))]
        events: list[Event] = []
        rejects: list[Reject] = []
        for item, text in enumerate(items):
            try:
                _require_utf8(text)
                events.append(self._event(text))
            except UNDECODABLE as bad:
                rejects.append(Reject(record, item, text, self._flaw(bad, text)))
        return events, rejects

    def _flaw(self, error: Exception, text: bytes) -> Flaw:
        """Name what is wrong: the same few mistakes are made again and again, and are looked into once."""
        if not text:
            return _EMPTY
        message = str(error)
        known = self._known.get(message)
        if known is None:
            if len(self._known) >= MAX_KNOWN_FLAWS:
                self._known.clear()
            known = self._known[message] = _classified(error, message)
        return known

    def _all_at_once(self, text: bytes) -> list[Event] | None:
        """Decode an array or lines in one call; None when not every item is a good event."""
        with suppress(*UNDECODABLE):
            if text[:1] == b"[":
                return None if self._array is None else self._array(text)
            if self._lines is not None and text and _one_a_line(text, len(events := self._lines(text))):
                return events
        return None


def _counts(records: int, uneven: dict[int, int]) -> NDArray[np.int64]:
    """Tell how many events each record gave, from those that did not give exactly one."""
    counts = np.ones(records, np.int64)
    counts[list(uneven)] = list(uneven.values())
    return counts


def split_items(value: bytes) -> list[bytes] | None:
    """Split the value of a record into its items.

    Args:
        value: An array, or several lines, of which at least one item is JSON by itself.

    Returns:
        The bytes of each item in order; None when the value is one item by itself.
    """
    text = value.strip()
    if text[:1] != b"[":
        return None if b"\n" not in text or _is_json(text) else _items_of_lines(text, _is_json)
    items = _items_of_array(text)
    first = text.partition(b"\n")[0].rstrip()
    if items is None and first != text and first[-1:] not in _UNFINISHED:
        return _items_of_lines(text, _is_json_object)
    return items


def _items_of_lines(text: bytes, is_item: Callable[[bytes], bool]) -> list[bytes] | None:
    """Take every line for an item, if any is one."""
    lines = [stripped for line in text.split(b"\n") if (stripped := line.strip())]
    return lines if any(map(is_item, lines)) else None


def _items_of_array(text: bytes) -> list[bytes] | None:
    """Split an array at its commas, also when an item is no JSON, such as one with NaN; None when it does not end."""
    with suppress(*UNDECODABLE):
        return [bytes(item) for item in _RAW_ARRAY(text)]
    if text[-1:] != b"]":
        return None
    items, start, depth, end = [], 1, 0, 0
    for found in _MARKS(text):
        mark = found.group()
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
            if not depth:
                end = found.start()
                break
        elif mark == b"," and depth == 1:
            items.append(text[start : found.start()].strip())
            start = found.end()
    items.append(text[start:end].strip())
    return items if end == len(text) - 1 and all(items) and any(map(_is_json, items)) else None


def _classified(error: Exception, message: str) -> Flaw:
    """Name what is wrong with an item that is not empty, from the exception that its decoding raised."""
    if isinstance(error, UnicodeDecodeError):
        return Flaw("decode", "invalid_utf8", message)
    if isinstance(error, RecursionError):
        return Flaw("decode", "too_deep", "the value is nested deeper than the decoder goes")
    if not isinstance(error, msgspec.ValidationError):
        return Flaw("decode", "malformed_json", message)
    if message.startswith("Expected `object`, got") and " - at " not in message:
        return Flaw("decode", "not_an_object", message)
    return Flaw("validate", _broken_rule(message), message)


def _broken_rule(message: str) -> Reason:
    if message.startswith("Object missing"):
        return "missing_field"
    if f">= {YEAR_2000_MS}" in message:
        return "timestamp_too_old"
    if " of length " in message:
        return "wrong_length"
    if message.startswith("Number out of range") or ">=" in message or "<=" in message:
        return "out_of_range"
    return "wrong_type"


def _one_a_line(text: bytes, objects: int) -> bool:
    """Tell whether every line is an object: msgspec also takes objects that only follow each other."""
    breaks = text.count(b"\n")
    return breaks == objects - 1 == text.count(b"}\n{") + text.count(b"}\r\n{")


# What the next two return is text: an exception that outlives its handler keeps every frame above it alive, with the
# messages of a whole batch, until the collector finds the cycle.


def _array_flaw(text: bytes) -> Flaw | None:
    """Tell why an array can't be split into its items; the decoder of events only says that it is an array."""
    try:
        if text[:1] == b"[":
            _RAW_ARRAY(text)
    except UNDECODABLE as error:
        return _classified(error, str(error))
    return None


def _is_json(text: bytes) -> bool:
    try:
        _RAW(text)
    except UNDECODABLE:
        return False
    return True


def _is_json_object(text: bytes) -> bool:
    return text[:1] == b"{" and _is_json(text)


def _require_utf8(value: bytes) -> None:
    if not value.isascii():
        value.decode()


def _utf8_error(value: bytes) -> str | None:
    try:
        _require_utf8(value)
    except UnicodeDecodeError as error:
        return str(error)
    return None

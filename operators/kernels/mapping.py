"""Events of producers that can't be changed: their keys and units, translated to the contract's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from operators.kernels.decode import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from operators.kernels.decode import DecodeEvent

_MS_PER: Final = {"s": 1_000, "ms": 1, "us": 1 / 1_000, "ns": 1 / 1_000_000}
_TICKS_PER_MS: Final = {"ms": 1, "us": 1_000, "ns": 1_000_000}
_MISSING: Final = object()
_JSON: Final = msgspec.json.Decoder().decode


def mapped_decoder(
    fields: Mapping[str, str], timestamp_unit: str, latency_unit: str, event_type: type[Event] = Event
) -> DecodeEvent | None:
    """Make the decoder of foreign events.

    Args:
        fields: For a field of the contract the key that it has in the producer's JSON. A key with dots is looked up as
            it stands first, then as a path into objects.
        timestamp_unit: `ms`, `s`, `us`, `ns`, or `iso` for ISO 8601 text, UTC unless it says otherwise.
        latency_unit: `ms`, `s`, `us` or `ns`.
        event_type: What an event becomes; fields that it doesn't have are not looked for.

    Returns:
        What turns the bytes of one JSON object into an event and raises `msgspec.DecodeError` when it can't; None when
        nothing is to be translated.
    """
    wanted = event_type.__struct_fields__
    paths = {name: path for name, path in fields.items() if name in wanted and path != name}
    if not paths and timestamp_unit == latency_unit == "ms":
        return None
    lookups = [(name, paths.get(name, name)) for name in wanted]
    to_ms = _iso_ms if timestamp_unit == "iso" else _timestamp_converter(timestamp_unit)
    latency_factor = _MS_PER[latency_unit]

    def decode(value: bytes) -> Event:
        foreign = _JSON(value)
        if not isinstance(foreign, dict):
            raise msgspec.ValidationError(f"Expected `object`, got `{type(foreign).__name__}`")
        found: dict[str, Any] = {name: leaf for name, path in lookups if (leaf := _leaf(foreign, path)) is not _MISSING}
        try:
            if "timestamp_ms" in found:
                found["timestamp_ms"] = to_ms(found["timestamp_ms"])
            if latency_factor != 1 and _is_number(found.get("latency_ms")):
                found["latency_ms"] *= latency_factor
        except OverflowError:
            raise msgspec.ValidationError("Number out of range") from None
        return msgspec.convert(found, event_type)

    return decode


def _leaf(foreign: dict[str, Any], path: str) -> object:
    """Look a key up, as it stands or as a path."""
    if path in foreign:
        return foreign[path]
    at: Any = foreign
    for key in path.split("."):
        if not isinstance(at, dict) or key not in at:
            return _MISSING
        at = at[key]
    return at


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _timestamp_converter(unit: str) -> Callable[[Any], Any]:
    """Make the conversion of a numeric time to whole milliseconds; what is no number passes, to be refused later."""

    def to_ms(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        if not _is_number(value) or unit == "ms":
            return value
        if unit == "s":
            return round(value * 1_000)
        return int(value // _TICKS_PER_MS[unit])

    return to_ms


def _iso_ms(value: object) -> int:
    """Convert ISO 8601 text to milliseconds, rounded down."""
    if not isinstance(value, str):
        raise msgspec.ValidationError(f"Expected ISO 8601 text, got `{type(value).__name__}` - at `$.timestamp_ms`")
    try:
        # RFC 3339 allows small letters; Python knows `Z` only.
        time = datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise msgspec.ValidationError("Expected ISO 8601 text - at `$.timestamp_ms`") from error
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    seconds, microsecond = int(aware.replace(microsecond=0).timestamp()), aware.microsecond
    return seconds * 1_000 + microsecond // 1_000

"""Time zones of the system as tables for the kernels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from operators.kernels.local_time import LocalTime

if TYPE_CHECKING:
    from datetime import tzinfo

_FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_DAYS: Final = 75 * 366
_ONE_SECOND: Final = timedelta(seconds=1)


def zone_name(value: str) -> str:
    """Check that a time zone is known here.

    Raises:
        ValueError: It is not.
    """
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError from error
    return value


@cache
def local_time(name: str) -> LocalTime:
    """Make the table of a time zone, from 2000, when the events that are accepted begin, for 75 years.

    Args:
        name: A zone that `zone_name` accepts.
    """
    if name == LocalTime().name:
        return LocalTime()
    zone = ZoneInfo(name)
    starts_ms: list[int] = []
    offsets_ms = [_offset_ms(zone, _FIRST)]
    for day in range(_DAYS):
        before, after = _FIRST + timedelta(days=day), _FIRST + timedelta(days=day + 1)
        if _offset_ms(zone, after) != offsets_ms[-1]:
            starts_ms.append(_change_ms(zone, before, after))
            offsets_ms.append(_offset_ms(zone, after))
    return LocalTime(name, tuple(starts_ms), tuple(offsets_ms))


def _change_ms(zone: tzinfo, before: datetime, after: datetime) -> int:
    """Find the second between two moments from which on the offset is that of the later one."""
    later = _offset_ms(zone, after)
    while after - before > _ONE_SECOND:
        middle = before + timedelta(seconds=(after - before) // _ONE_SECOND // 2)
        if _offset_ms(zone, middle) == later:
            after = middle
        else:
            before = middle
    return int(after.timestamp()) * 1_000


def _offset_ms(zone: tzinfo, moment: datetime) -> int:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None, "an aware moment has an offset"
    return int(offset.total_seconds() * 1_000)

"""Local time as a table: what a time zone adds to universal time, and from when on."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LocalTime:
    """The offsets of one time zone.

    A kernel does not look into the system's time zones: it is given this table, so that results depend on it alone.

    Attributes:
        name: Of the time zone, such as `Europe/Berlin`.
        starts_ms: Moments at which the offset changes, rising, in milliseconds of universal time.
        offsets_ms: Local time less universal time: before the first of these moments, and from each of them on.
    """

    name: str = "UTC"
    starts_ms: tuple[int, ...] = ()
    offsets_ms: tuple[int, ...] = (0,)

    def local_ms(self, at_ms: int) -> int:
        """Give the local time at a moment, in milliseconds since 1970 began there."""
        return at_ms + self.offsets_ms[bisect_right(self.starts_ms, at_ms)]

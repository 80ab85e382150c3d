"""Series of one shard, carried on pane by pane as panes close: what windows and tallies have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Protocol, TypeVar

import numpy as np

from operators.kernels.codec import pack, unpack
from operators.kernels.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from numpy.typing import NDArray

    from operators.kernels.window_rules import WindowRules

OVERFLOW_ENDPOINT: Final = "__overflow__"
"""Endpoint that stands for the series of a service that came after the limit was reached."""

NEVER: Final = -(1 << 60)
"""Last pane of a slot whose series does not live."""

_COMPACT_SLOTS: Final = 64


class Rows(Protocol):
    """Pre-aggregated events of one shard, of any panes, in any order."""

    @property
    def requests(self) -> int:
        """How many events there are."""


class Renumbered(Protocol):
    """Traffic of one pane by slot."""

    def renumbered(self, slot_of: NDArray[np.int64]) -> Self:
        """Give the traffic with other slot numbers; series that get the same number are merged."""


R = TypeVar("R", bound=Rows)
R_contra = TypeVar("R_contra", bound=Rows, contravariant=True)
T = TypeVar("T", bound=Renumbered)
T_co = TypeVar("T_co", bound=Renumbered, covariant=True)
F = TypeVar("F")


class Open(Protocol[R_contra, T_co]):
    """Panes that may still receive events."""

    def add(self, rows: R_contra, slots: Slots, closed: int | None) -> int:
        """Add rows of panes that are not closed, and tell how many events were left out."""

    def first(self) -> int | None:
        """Give the earliest pane that has traffic, None when there is none."""

    def pop(self, pane: int) -> T_co | None:
        """Take a pane out, None when it had no traffic."""

    def slots(self) -> NDArray[np.int64]:
        """Give the slots that have traffic, in any order."""

    def renumber(self, slot_of: NDArray[np.int64]) -> None:
        """Give all slots other numbers; no two get the same."""


class ClosingPanes(ABC, Generic[R, T, F]):
    """The series of one shard.

    Attributes:
        KIND: Name of this state.
        VERSION: Of its layout.
        rules: Length of a pane, and the limits.
        closed: First pane that is not complete; None before anything was.
        folded: How many times a new series was folded into `__overflow__`, once a pane.
    """

    KIND: ClassVar[str]
    VERSION: ClassVar[int]

    _open: Open[R, T]

    def __init__(self, rules: WindowRules) -> None:
        """Start without series.

        Args:
            rules: The settings of the windows.
        """
        self.rules = rules
        self.closed: int | None = None
        self.folded = 0
        self._slots = Slots()
        self._to_fold: dict[int, list[tuple[str, str]]] = {}

    @classmethod
    def from_bytes(cls, rules: WindowRules, data: bytes) -> Self:
        """Resume from what `to_bytes` gave.

        Args:
            rules: The settings of the windows.
            data: A snapshot.

        Raises:
            StateError: The bytes are damaged or of a layout that this release does not read.
        """
        _, values, arrays = unpack(cls.KIND, (cls.VERSION,), data)
        self = cls(rules)
        self._restore(values, arrays)
        return self

    def to_bytes(self) -> bytes:
        """Encode everything that the next frames depend on."""
        self._fit()
        return pack(self.KIND, self.VERSION, *self._stored())

    @property
    def names(self) -> list[tuple[str, str]]:
        """(service, endpoint) of each slot."""
        return self._slots.names

    @property
    def series(self) -> int:
        """How many series live."""
        return int(np.count_nonzero(self._last_panes() > NEVER))

    def add(self, rows: R) -> tuple[int, int]:
        """Add pre-aggregated events.

        Args:
            rows: Rows of this shard, of any panes, in any order.

        Returns:
            How many events were accepted, and how many came after their pane was complete. The latter happens only
            behind an idle partition that wakes up, or behind the end of a job that is resumed.
        """
        late = self._open.add(rows, self._slots, self.closed)
        return rows.requests - late, late

    def fold(self, folded: dict[int, list[tuple[str, str]]]) -> None:
        """Take note of series that have no place.

        Args:
            folded: By pane, none of which is closed yet, the series whose traffic goes to `__overflow__`.
        """
        self._to_fold.update(folded)

    def advance(self, complete: int) -> list[F]:
        """Close all panes before `complete`.

        Args:
            complete: First pane that may still receive events.

        Returns:
            The frames of these panes, in order of time. Panes without any series on the way to the next traffic have
            none.
        """
        frames: list[F] = []
        if self.closed is not None and self.closed >= complete:
            return frames
        while self.closed is None or self.closed < complete:
            if self.closed is None or not self.series:
                following = self._open.first()
                self.closed = complete if following is None else min(following, complete)
                if self.closed == complete:
                    break
            pane = self.closed
            traffic = self._taken(pane)
            self._fit()
            frame = self._close(pane, traffic)
            self.closed = pane + 1
            if frame is not None:
                frames.append(frame)
        self._compact()
        return frames

    def again(self) -> F | None:
        """Give the last frame once more when it says everything that came before as well; None otherwise."""
        return None

    @abstractmethod
    def _last_panes(self) -> NDArray[np.int64]:
        """Give the last pane with traffic of each slot there is room for, `NEVER` where no series lives."""

    @abstractmethod
    def _fit(self) -> None:
        """Make room for all slots."""

    @abstractmethod
    def _close(self, pane: int, traffic: T | None) -> F | None:
        """Let a complete pane in, and give the frame of its end, if there is any."""

    @abstractmethod
    def _renumber(self, kept: NDArray[np.intp], slot_of: NDArray[np.int64]) -> None:
        """Keep these slots under other numbers.

        Args:
            kept: Slots that stay, ascending; there is room for each.
            slot_of: By old slot, the new one of those that stay.
        """

    def _stored(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Give plain values and arrays for a snapshot; there is room for all slots."""
        values = {
            "closed": self.closed,
            "folded": self.folded,
            "names": self.names,
            "to_fold": list(self._to_fold.items()),
        }
        return values, {}

    def _restore(self, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:  # noqa: ARG002 - for subclasses
        """Hold what `_stored` gave, with room for all slots."""
        self.closed, self.folded = values["closed"], values["folded"]
        self._to_fold = {
            pane: [(service, endpoint) for service, endpoint in series] for pane, series in values["to_fold"]
        }
        self._slots = Slots([(service, endpoint) for service, endpoint in values["names"]])
        self._fit()

    def _taken(self, pane: int) -> T | None:
        """Take out a complete pane; traffic of series that have no place goes to `__overflow__` of their service."""
        traffic = self._open.pop(pane)
        series = self._to_fold.pop(pane, [])
        if traffic is None or not series:
            return traffic
        self.folded += len(series)
        slots = self._slots.of(series)
        overflow = self._slots.of([(service, OVERFLOW_ENDPOINT) for service, _ in series])
        slot_of = np.arange(len(self.names))
        slot_of[slots] = overflow
        return traffic.renumbered(slot_of)

    def _compact(self) -> None:
        """Renumber the slots when most of them stand for series that are gone."""
        n, living = len(self.names), self.series
        if n - living <= max(_COMPACT_SLOTS, living):
            return
        self._fit()
        used = self._last_panes()[:n] > NEVER
        used[self._open.slots()] = True
        kept = np.flatnonzero(used)
        if n - len(kept) <= len(kept):
            return
        slot_of = np.cumsum(used) - 1
        self._slots = Slots([self.names[slot] for slot in kept.tolist()])
        self._open.renumber(slot_of)
        self._renumber(kept, slot_of)

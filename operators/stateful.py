"""The one bridge between a kernel with state and Bytewax: bytes in, bytes out, nothing at the end of the input."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from bytewax.operators import StatefulBatchLogic

from operators.reporting import reported

if TYPE_CHECKING:
    from collections.abc import Callable

    from operators.vitals import ShardVitals

_AGAIN_AFTER: Final = timedelta(seconds=0.2)

V_contra = TypeVar("V_contra", contravariant=True)
V = TypeVar("V")
W = TypeVar("W")


class ShardState(Protocol[V_contra, W]):
    """State of one step of one shard."""

    def step(self, item: V_contra) -> list[W]:
        """Take one item in and give what follows from it."""

    def to_bytes(self) -> bytes:
        """Encode everything that later steps depend on, in a versioned layout."""


class ShardLogic(StatefulBatchLogic[V, W, bytes]):
    """Runs a `ShardState` as a key of `stateful_batch`.

    The key is never discarded (Bytewax would keep a tombstone for it for ever), the end of the input emits nothing (a
    drained job goes on later), and a snapshot is bytes that were fixed when Bytewax asked.
    """

    def __init__(
        self, state: ShardState[V, W], vitals: ShardVitals, again: Callable[[], list[W]] | None = None
    ) -> None:
        """Wrap a state.

        Args:
            state: New or resumed.
            vitals: Where the size of snapshots is noted.
            again: Says once more what a resumed state said last, for a page that has just begun: events may be long in
                coming. None for a state that has nothing to repeat.
        """
        self._state = state
        self._vitals = vitals
        self._again = again
        self._again_at = None if again is None else datetime.now(UTC) + _AGAIN_AFTER

    @reported
    def on_batch(self, values: list[V]) -> tuple[list[W], bool]:
        """Step through the items in their order."""
        outs = [out for value in values for out in self._state.step(value)]
        if outs:
            self._again = None
        return outs, StatefulBatchLogic.RETAIN

    @reported
    def on_notify(self) -> tuple[list[W], bool]:
        """Repeat what the state said last, unless it has gone on."""
        again, self._again, self._again_at = self._again, None, None
        return [] if again is None else again(), StatefulBatchLogic.RETAIN

    def notify_at(self) -> datetime | None:
        """Ask for the repetition, once."""
        return self._again_at

    @reported
    def snapshot(self) -> bytes:
        """Encode the state now, not when Bytewax writes it."""
        data = self._state.to_bytes()
        self._vitals.snapshot_bytes = len(data)
        return data

"""Close the panes of shards as event time completes: what the windows and the tallies have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import bytewax.operators as op

from operators.kernels.census import Verdict
from operators.kernels.codec import pack, unpack
from operators.kernels.watermarks import Mark, Marks, Watermarks
from operators.reporting import reported
from operators.stateful import ShardLogic

if TYPE_CHECKING:
    from bytewax.operators import KeyedStream

    from operators.kernels.closing import ClosingPanes
    from operators.kernels.window_rules import WindowRules
    from operators.vitals import ShardVitals, Vitals

R = TypeVar("R")
F = TypeVar("F")

_VERSION: Final = 1


class ClosingShard(Generic[R, F]):
    """Series of one shard, whose panes close when all partitions have passed them and the census has decided them.

    Attributes:
        KIND: Name of this state.
        KERNEL: What is kept of the series.
    """

    KIND: ClassVar[str]
    KERNEL: ClassVar[type[ClosingPanes[Any, Any, Any]]]

    def __init__(self, rules: WindowRules, vitals: Vitals, numbers: ShardVitals, data: bytes | None = None) -> None:
        """Start, or resume from a snapshot.

        Args:
            rules: Length of panes and windows, and limits.
            vitals: Where events are counted.
            numbers: Where series are counted.
            data: What `to_bytes` gave; None for a start.

        Raises:
            StateError: The bytes are damaged or of a layout that this release does not read.
        """
        self._vitals = vitals
        self._numbers = numbers
        self._decided: int | None = None
        self._panes: ClosingPanes[Any, Any, F]
        marks: dict[int, Mark] = {}
        if data is None:
            self._panes = self.KERNEL(rules)
        else:
            _, values, _ = unpack(self.KIND, (_VERSION,), data)
            self._panes = self.KERNEL.from_bytes(rules, values[self.KERNEL.KIND])
            self._decided = values["decided"]
            marks = Watermarks.restored(values["marks"])
            self._note_series()
        self._watermarks = Watermarks(slide_ms=rules.slide_ms, panes_in_window=rules.panes_in_window, marks=marks)

    def step(self, item: R | Marks | Verdict) -> list[F]:
        """Count rows, or close the panes that are complete and decided."""
        if isinstance(item, Verdict):
            self._decided = item.decided
            self._panes.fold(item.folded)
        elif isinstance(item, Marks):
            self._watermarks.apply(item)
        else:
            accepted, late = self._panes.add(item)
            self._vitals.count("accepted", accepted)
            self._vitals.count("late", late)
            return []
        complete = self._watermarks.complete()
        if complete is None or self._decided is None:
            return []
        frames = self._panes.advance(min(complete, self._decided))
        if frames:
            self._note_series()
        return frames

    def again(self) -> list[F]:
        """Give the last frame once more, where it says everything that came before as well."""
        frame = self._panes.again()
        return [] if frame is None else [frame]

    def to_bytes(self) -> bytes:
        """Encode what is kept of the series, and the marks it waits for."""
        values = {
            "marks": self._watermarks.plain(),
            "decided": self._decided,
            self.KERNEL.KIND: self._panes.to_bytes(),
        }
        return pack(self.KIND, _VERSION, values, {})

    def _note_series(self) -> None:
        self._numbers.series, self._numbers.folded = self._panes.series, self._panes.folded


def closed(
    rows: KeyedStream[R | Marks],
    verdicts: KeyedStream[Verdict],
    of_shard: type[ClosingShard[R, F]],
    rules: WindowRules,
    vitals: Vitals,
) -> KeyedStream[F]:
    """Gather the rows of each shard, and close its panes.

    Args:
        rows: Rows and news of event time, by shard.
        verdicts: Which series have a place of their own, by shard.
        of_shard: What becomes of the rows.
        rules: Length of panes and windows, and limits.
        vitals: Where events and series are counted.

    Returns:
        One frame for each shard and end of a pane, when all partitions have passed it and the census has decided.
    """

    @reported
    def build(data: bytes | None) -> ShardLogic[R | Marks | Verdict, F]:
        numbers = vitals.shard()
        state = of_shard(rules, vitals, numbers, data)
        return ShardLogic(state, numbers, None if data is None else state.again)

    return op.stateful_batch("state", op.merge("both", rows, verdicts), build)

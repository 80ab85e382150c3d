"""The limit on the number of series, over all shards, decided by the log.

Which series are too many must not depend on how workers interleave. So one census for the whole flow looks at every
pane when it is complete: series that are known stay, new ones get the places that are left in the order of their names,
and the rest is folded.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, TypeAlias

from operators.kernels.codec import pack, unpack
from operators.kernels.series import shard_of

if TYPE_CHECKING:
    from operators.kernels.series import Sightings
    from operators.kernels.window_rules import WindowRules

Series: TypeAlias = tuple[str, str]

_KIND: Final = "census"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a shard is told of panes that are complete.

    Attributes:
        decided: First pane that is not decided yet.
        folded: The series of this shard that have no place, by pane.
    """

    decided: int
    folded: dict[int, list[Series]]


class Census:
    """All series that have windows, in all shards."""

    def __init__(self, rules: WindowRules, shards: int) -> None:
        """Start without series.

        Args:
            rules: The limit, and how long a silent series keeps its place.
            shards: Number of shards that services are spread over.
        """
        self._rules = rules
        self._shards = shards
        self._decided: int | None = None
        self._members: dict[Series, int] = {}
        self._seen: dict[int, set[Series]] = {}

    def add(self, sightings: Sightings) -> None:
        """Note which series had traffic in which pane."""
        start = 0
        for pane, run in groupby(sightings.panes):
            stop = start + len(list(run))
            if self._decided is None or pane >= self._decided:
                self._seen.setdefault(pane, set()).update(sightings.series[start:stop])
            start = stop

    def advance(self, complete: int) -> list[Verdict]:
        """Decide all panes before `complete`.

        Args:
            complete: First pane that may still receive events.

        Returns:
            One verdict for each shard, in the order of shards; none when there was nothing to decide.
        """
        if self._decided is not None and complete <= self._decided:
            return []
        folded: list[dict[int, list[Series]]] = [{} for _ in range(self._shards)]
        for pane in sorted(pane for pane in self._seen if pane < complete):
            for series in self._without_place(pane, self._seen.pop(pane)):
                folded[shard_of(series[0], self._shards)].setdefault(pane, []).append(series)
        self._decided = complete
        return [Verdict(complete, of_shard) for of_shard in folded]

    def _without_place(self, pane: int, seen: set[Series]) -> list[Series]:
        """Give places to the series of a pane, and return those that got none."""
        # Between sets and dictionaries hashes are handed on; a comprehension would hash every name again.
        folded: list[Series] = []
        if len(self._members) + len(seen.difference(self._members)) > self._rules.max_series:
            self._forget_silent(pane)
            new = sorted(seen.difference(self._members))
            folded = new[max(0, self._rules.max_series - len(self._members)) :]
            seen = seen.difference(folded)
        self._members.update(dict.fromkeys(seen, pane))
        return folded

    def _forget_silent(self, pane: int) -> None:
        """Take the places of series back whose windows ended before this pane, by the rule of the windows."""
        rules = self._rules
        keeps = max(rules.series_ttl_ms // rules.slide_ms, rules.panes_in_window - 1)
        self._members = {series: last for series, last in self._members.items() if pane - 1 - last <= keeps}

    def to_bytes(self) -> bytes:
        """Encode everything that later verdicts depend on."""
        values = {
            "decided": self._decided,
            "members": list(self._members.items()),
            "seen": [(pane, list(series)) for pane, series in self._seen.items()],
        }
        return pack(_KIND, _VERSION, values, {})

    @classmethod
    def from_bytes(cls, rules: WindowRules, shards: int, data: bytes) -> Census:
        """Resume from what `to_bytes` gave.

        Raises:
            StateError: The bytes are damaged or of a layout that this release does not read.
        """
        _, values, _ = unpack(_KIND, (_VERSION,), data)
        self = cls(rules, shards)
        self._decided = values["decided"]
        self._members = {(service, endpoint): last for (service, endpoint), last in values["members"]}
        self._seen = {pane: {(service, endpoint) for service, endpoint in seen} for pane, seen in values["seen"]}
        return self

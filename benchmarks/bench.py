"""What all parts of the benchmark share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cluster import Cluster
    from benchmarks.load import Load
    from benchmarks.throughput import Startup


@dataclass
class Bench:
    """One run of the benchmark.

    Attributes:
        cluster: Where it happens.
        events: Good events that throughput is measured with.
        runs: Repetitions of each measurement; parts report medians.
        seconds: How long the parts with live traffic watch it.
        say: Told what is going on.
        startup: What starting costs, once it has been measured.
    """

    cluster: Cluster
    events: int
    runs: int
    seconds: int
    say: Callable[[str], None]
    startup: Startup | None = field(default=None)

    def scaled(self, load: Load) -> Load:
        """Give a load with the number of events that was asked for."""
        return replace(load, events=self.events)

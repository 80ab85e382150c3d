"""Live traffic beside a flow: the simulator as a process of its own, at the pace of the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.processes import Child

if TYPE_CHECKING:
    from collections.abc import Mapping


class LiveTraffic:
    """The simulator at work for as long as the context lasts."""

    def __init__(self, environment: Mapping[str, str], *, rate_per_s: float, services: int, endpoints: int) -> None:
        """Say what it sends.

        Args:
            environment: Where to.
            rate_per_s: Events a second, a day's average.
            services: Number of services.
            endpoints: Endpoints of each.
        """
        self._environment = environment
        self._arguments = ["-m", "simulator", "--clean", "--scenario", "calm", "--no-truth"]
        self._arguments += ["--rate", str(rate_per_s), "--services", str(services), "--endpoints", str(endpoints)]
        self._child: Child | None = None

    def __enter__(self) -> Child:
        """Start it."""
        self._child = Child(self._arguments, self._environment)
        return self._child

    def __exit__(self, *_: object) -> None:
        """End it."""
        if self._child is not None:
            self._child.kill()

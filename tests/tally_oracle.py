"""An exact, slow and obvious reading of what the bridge counts; it shares no code with the kernels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.oracle import Oracle

BOUNDS_S = [2.0**power for power in range(-10, 7)]


@dataclass(frozen=True)
class Request:
    """An accepted event."""

    service: str
    endpoint: str
    status: int
    timestamp_ms: int
    latency_us: int
    trace_id: object = None


@dataclass
class TallyOracle(Oracle):
    """Requests by the letter of the contract.

    Attributes:
        requests: Accepted events in the order they were read.
    """

    requests: list[Request] = field(default_factory=list)

    def codes(self, before_ms: int | None = None) -> Counter[tuple[str, str, int]]:
        """Count requests by service, endpoint and status code, all or those before a time."""
        return Counter((one.service, one.endpoint, one.status) for one in self._before(before_ms))

    def sums_us(self, before_ms: int | None = None) -> Counter[tuple[str, str]]:
        """Sum latencies by series."""
        sums: Counter[tuple[str, str]] = Counter()
        for one in self._before(before_ms):
            sums[one.service, one.endpoint] += one.latency_us
        return sums

    def classic(self, before_ms: int | None = None) -> dict[tuple[str, str], list[int]]:
        """Count requests by series and classic bucket, cumulative, the last bucket without bound."""
        counts: dict[tuple[str, str], list[int]] = {}
        for one in self._before(before_ms):
            of_series = counts.setdefault((one.service, one.endpoint), [0] * (len(BOUNDS_S) + 1))
            for number, bound in enumerate([*BOUNDS_S, float("inf")]):
                of_series[number] += one.latency_us <= bound * 1e6
        return counts

    def _before(self, before_ms: int | None) -> list[Request]:
        return [one for one in self.requests if before_ms is None or one.timestamp_ms < before_ms]

    def _count(self, partition: int, event: dict[str, Any]) -> None:
        series = (event.get("service", ""), event.get("endpoint", ""))
        before = len(self.accepted.get(series, ()))
        super()._count(partition, event)
        if len(self.accepted.get(series, ())) > before:
            timestamp_ms, latency_us, _ = self.accepted[series][-1]
            self.requests.append(
                Request(*series, event.get("status", 200), timestamp_ms, latency_us, event.get("trace_id"))
            )

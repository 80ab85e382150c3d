"""Notices a cluster that stands still: a frozen process stalls all others, and Bytewax has no timeout for it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_POLLS_PER_LIMIT: Final = 10
_LONGEST_PAUSE_S: Final = 2.0
_SHORTEST_PAUSE_S: Final = 0.1
_ANSWER_TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 65_536
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class Limits:
    """How long what may take.

    Attributes:
        start_s: From the start of the processes to the end of the first epoch.
        stall_s: Between the ends of two epochs, and between two answers of a page.
    """

    start_s: float
    stall_s: float


@dataclass(slots=True)
class Pulse:
    """What a process last said of itself.

    Attributes:
        name: What people call it.
        host: Of its page.
        port: Likewise.
        answered_s: When its page last answered, by the clock of the watchdog; None before the first time.
        restored: Whether an epoch of it has ended: it has loaded its state and reached the others.
        epoch_age_s: Age of its oldest open epoch when it last answered.
        gone: Whether it ended, and need not answer any more.
    """

    name: str
    host: str
    port: int
    answered_s: float | None = None
    restored: bool = False
    epoch_age_s: float = 0.0
    gone: bool = False


class Watchdog:
    """Asks each process for its health, again and again.

    Attributes:
        pulses: What each last said.
        began: Set once the cluster has begun.
    """

    def __init__(self, pulses: Sequence[Pulse], limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Watch processes that were started just now.

        Args:
            pulses: Those to ask.
            limits: How long what may take.
            clock: Seconds that never jump.
        """
        self.pulses = tuple(pulses)
        self.began = asyncio.Event()
        self._limits = limits
        self._clock = clock
        self._began_s = clock()
        self._timeout_s = min(_ANSWER_TIMEOUT_S, limits.stall_s / 2)

    @property
    def answering(self) -> bool:
        """Whether each process has served its page: only then do they read, and know what SIGTERM means."""
        return all(pulse.gone or pulse.answered_s is not None for pulse in self.pulses)

    @property
    def up(self) -> bool:
        """Whether the cluster has begun: an epoch ended, which takes all processes."""
        return self.answering and any(pulse.restored for pulse in self.pulses)

    async def until_stalled(self) -> list[str]:
        """Ask until the cluster stands still.

        Returns:
            Why it is thought to, one reason for each process that shows it.
        """
        steady_s = min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, self._limits.stall_s / _POLLS_PER_LIMIT))
        while True:
            pause_s = steady_s if self.up else _SHORTEST_PAUSE_S
            before_s = self._clock()
            await asyncio.gather(*(self._ask(pulse) for pulse in self.pulses if not pulse.gone))
            if self.up:
                self.began.set()
            reasons = self.reasons()
            if reasons:
                return reasons
            await asyncio.sleep(max(0.0, pause_s - (self._clock() - before_s)))

    def reasons(self) -> list[str]:
        """Say why the cluster stands still; nothing when it moves, as far as is known."""
        now_s = self._clock()
        if not self.up:
            if now_s - self._began_s <= self._limits.start_s:
                return []
            late = [pulse.name for pulse in self.pulses if not pulse.restored]
            return [f"{name} has not begun after {now_s - self._began_s:.0f} s" for name in late]
        # A process without a part of the input never ends an epoch by itself; the others can't without it.
        found = []
        for pulse in self.pulses:
            silent_s = now_s - (pulse.answered_s or self._began_s)
            if pulse.gone:
                continue
            if silent_s > self._limits.stall_s:
                found.append(f"{pulse.name} has not answered for {silent_s:.0f} s")
            elif pulse.restored and pulse.epoch_age_s > self._limits.stall_s:
                found.append(f"{pulse.name} has ended no epoch for {pulse.epoch_age_s:.0f} s")
        return found

    async def _ask(self, pulse: Pulse) -> None:
        """Take down what a process says; one that does not answer is judged by how long it has not."""
        try:
            facts = await asyncio.wait_for(_health(pulse.host, pulse.port), self._timeout_s)
            epoch_age_s, restored = float(facts["epoch_age_seconds"]), bool(facts["restored"])
        except (OSError, TimeoutError, ValueError, KeyError, TypeError):
            return
        pulse.answered_s, pulse.epoch_age_s, pulse.restored = self._clock(), epoch_age_s, restored


async def _health(host: str, port: int) -> dict[str, Any]:
    """Read `/readyz`, which has the facts of `/healthz` and whether the state is restored.

    Raises:
        OSError: Nobody listens, or the connection broke.
        ValueError: The answer is not what a page says.
    """
    reader, writer = await asyncio.open_connection(_ANY_ADDRESS.get(host, host), port)
    try:
        writer.write(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while len(answer) < _MOST_BYTES and (data := await reader.read(_MOST_BYTES)):
            answer += data
    finally:
        writer.close()
    facts = json.loads(answer.partition(b"\r\n\r\n")[2])
    if not isinstance(facts, dict):
        raise TypeError
    return facts

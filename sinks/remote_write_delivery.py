"""Brings frames to a receiver of remote write, whatever it answers, and says what it did not take.

Who is at fault decides what happens. The network or the receiver (no answer, 5xx, 429): the same request is sent again
until it is taken. A sample (400 and the like): the request is parted until the sample stands alone; it is counted and
left out. The configuration (401, 403, 404, 405, a redirect): nothing would ever be taken, so the flow stops.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from sinks.remote_write_encoding import SAMPLES_OF_HISTOGRAM
from sinks.remote_write_requests import batches
from sources.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from operators.kernels.tally_frame import TallyFrame
    from sinks.remote_write_dialects import Version
    from sinks.remote_write_receiver import Answer, Receiver
    from sinks.remote_write_requests import Batch

Outcome = Literal[
    "written", "suppressed", "out_of_order", "too_old", "duplicate", "refused", "server_error", "native_unsupported"
]
"""What became of a sample; all but the first two mean that the receiver does not have it."""

FIRST_PAUSE_S: Final = 0.03
"""How long the first pause between two tries is; each is twice as long as the one before."""

PATIENCE: Final = 5
"""How often a request may fail with a 500 before its samples are suspected, and not the receiver."""

MANY_PROBES: Final = 64
FEW_PROBES: Final = 8
"""How many samples, evenly spread, must be refused for their time before a whole request is; few, when the last one
was."""

_FRUITLESS_POSTS: Final = 32
_LOG: Final = logging.getLogger(__name__)
_OK: Final = range(200, 300)
_TOO_MANY: Final = 429
_UNSUPPORTED: Final = 415
_INTERNAL: Final = 500
_MISCONFIGURED: Final = frozenset({*range(300, 400), 401, 403, 404, 405, 407})
_TIME_REASONS: Final = frozenset({"out_of_order", "too_old", "duplicate"})
_REASONS: Final[tuple[tuple[str, Outcome], ...]] = (
    ("out of bounds", "too_old"),
    ("too old", "too_old"),
    ("too-old", "too_old"),
    ("duplicate", "duplicate"),
    ("out of order", "out_of_order"),
    ("out-of-order", "out_of_order"),
)


class RemoteWriteError(OutputError):
    """The receiver does not let us write at all."""


class AbandonedError(Exception):
    """The flow ends before everything was delivered."""


class _OtherVersionError(Exception):
    """The receiver does not know this version of the protocol."""


@dataclass(slots=True)
class DeliveryCounts:
    """What was delivered since the process started.

    Attributes:
        samples: Samples by what became of them.
        retries: Requests that had to be sent again.
    """

    samples: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(get_args(Outcome), 0))
    retries: int = 0


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """How to deliver.

    Attributes:
        version: Of the protocol; None begins with 2.0 and falls back to 1.0.
        native: Whether native histograms are written as well.
        max_samples: Most samples in a request.
        longest_pause_s: Longest pause between two tries.
        max_age_s: Samples older than this are counted and not sent; None for none.
    """

    version: Version | None = None
    native: bool = True
    max_samples: int = 2_000
    longest_pause_s: float = 5.0
    max_age_s: float | None = None


class Delivery:
    """Delivers frames one pane after the other."""

    def __init__(
        self,
        receiver: Receiver,
        rules: DeliveryRules,
        *,
        rest: Callable[[float], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            receiver: Where to.
            rules: How.
            rest: Waits for so many seconds; True when waiting has no sense any more.
            clock: Seconds since the epoch, to tell how old samples are.
        """
        self.counts = DeliveryCounts()
        self._receiver = receiver
        self._rules = rules
        self._version: Version = rules.version or "2.0"
        self._native = rules.native
        self._rest = rest
        self._clock = clock
        self._waiting = False
        self._probes = MANY_PROBES

    def deliver(self, frames: Sequence[TallyFrame]) -> None:
        """Deliver all samples of one pane.

        Args:
            frames: Frames of different shards with the same pane end.

        Raises:
            RemoteWriteError: The receiver does not let us write.
            AbandonedError: The flow ends.
        """
        oldest_ms, age_s = frames[0].pane_end_ms, self._rules.max_age_s
        if age_s is not None and self._clock() - oldest_ms / 1000 > age_s:
            self.counts.samples["too_old"] += sum(map(samples_in, frames))
            return
        try:
            self._deliver(frames)
        except _OtherVersionError:
            _LOG.info("%s does not take remote write 2.0, so 1.0 is used", self._receiver.name)
            self._version = "1.0"
            self._deliver(frames)

    def _deliver(self, frames: Sequence[TallyFrame]) -> None:
        for batch in batches(frames, self._version, max_samples=self._rules.max_samples, native=self._native):
            if self._native or not batch.native:
                self._send(batch)

    def _send(self, batch: Batch, *, whole: bool = True) -> None:
        """Send a request, or a part of one, until every sample in it was taken or refused."""
        pause_s, internal_errors = FIRST_PAUSE_S, 0
        while True:
            answer = self._receiver.post(batch)
            if answer.status in _OK:
                self._taken(batch, answer)
                return
            if answer.status == _UNSUPPORTED and batch.version == "2.0" and self._rules.version is None:
                raise _OtherVersionError
            if answer.status in _MISCONFIGURED:
                raise RemoteWriteError(
                    f"remote write to {self._receiver.name} is refused with {answer.status} ({_short(answer)}); no "
                    f"sample is lost: mend TAILMARK_PROMETHEUS__REMOTE_WRITE_URL or the receiver, and start again"
                )
            if answer.status and answer.status < _INTERNAL and answer.status != _TOO_MANY:
                self._refused(batch, answer, whole=whole)
                return
            internal_errors += answer.status == _INTERNAL
            if internal_errors and self._at_fault(batch, answer, internal_errors):
                return
            self._wait(answer, answer.retry_after_s if answer.retry_after_s is not None else pause_s)
            pause_s = min(2 * pause_s, self._rules.longest_pause_s)

    def _taken(self, batch: Batch, answer: Answer) -> None:
        """Count what was written; a receiver of 2.0 says how much, one that does not has not understood."""
        if batch.version == "2.0" and answer.written is None:
            if self._rules.version is None:
                raise _OtherVersionError
            raise RemoteWriteError(
                f"{self._receiver.name} answered a request of remote write 2.0 without saying what it wrote, so it "
                f"does not know this version; set TAILMARK_PROMETHEUS__REMOTE_WRITE_VERSION=1.0, or leave it unset"
            )
        if self._waiting:
            self._waiting = False
            _LOG.warning("%s takes samples again", self._receiver.name)
        self.counts.samples["written"] += len(batch.entries)

    def _wait(self, answer: Answer, pause_s: float) -> None:
        """Wait for the receiver."""
        if not self._waiting:
            self._waiting = True
            _LOG.warning("%s does not take samples (%s): trying until it does", self._receiver.name, _short(answer))
        self.counts.retries += 1
        if self._rest(pause_s):
            raise AbandonedError

    def _refused(self, batch: Batch, answer: Answer, *, whole: bool) -> None:
        """Find the samples that a request was refused for, and leave them out."""
        reason = _reason(answer)
        if batch.version == "2.0" and answer.written:
            self.counts.samples["written"] += answer.written
            self._left_out(reason, len(batch.entries) - answer.written, answer)
        elif len(batch.entries) == 1 or "out of bounds" in answer.text.lower():
            self._left_out(reason, len(batch.entries), answer)
        elif whole and reason in _TIME_REASONS and self._refused_throughout(batch, reason):
            self._probes = FEW_PROBES
            self._left_out(reason, len(batch.entries), answer)
        else:
            self._probes = MANY_PROBES
            for half in batch.halves():
                self._send(half, whole=False)

    def _refused_throughout(self, batch: Batch, reason: Outcome) -> bool:
        """Tell whether samples from all over a request are each refused for their time.

        So they are when hours are sent again to a receiver that takes nothing out of order: to try every one would take
        days.
        """
        probes = self._probes
        if len(batch.entries) <= 2 * probes:
            return False
        last = len(batch.entries) - 1
        for number in range(probes):
            answer = self._receiver.post(batch.only(number * last // (probes - 1)))
            if answer.status in _OK or _reason(answer) != reason:
                return False
        return True

    def _left_out(self, reason: Outcome, samples: int, answer: Answer) -> None:
        if samples > 0:
            self.counts.samples[reason] += samples
            _LOG.warning("%s refused %d samples (%s): %s", self._receiver.name, samples, reason, _short(answer))

    def _at_fault(self, batch: Batch, answer: Answer, failures: int) -> bool:
        """Tell whether a request that fails with a 500 has been dealt with, because its samples are at fault."""
        if batch.native and "native histograms are disabled" in answer.text:
            self._native = False
            self._left_out("native_unsupported", len(batch.entries), answer)
            return True
        return failures % PATIENCE == 0 and self._sifted(batch)

    def _sifted(self, batch: Batch) -> bool:
        """Part a request whose failure may be the fault of a sample; False when it is that of the receiver.

        A sample is at fault when it fails by itself while another one is taken.
        """
        good: list[Batch] = []
        bad: list[tuple[Batch, Answer]] = []
        parts, posts = [batch], 0
        while parts:
            part = parts.pop()
            answer = self._receiver.post(part)
            posts += 1
            if answer.status in _OK:
                good.append(part)
            elif len(part.entries) == 1:
                bad.append((part, answer))
            else:
                parts += part.halves()
            if not good and posts > _FRUITLESS_POSTS:
                return False
        if not good:
            return False
        witness = good[-1].only(0)
        for part, answer in bad:
            if self._receiver.post(part).status not in _OK:
                if self._receiver.post(witness).status not in _OK:
                    return False
                self._left_out("server_error", 1, answer)
            else:
                good.append(part)
        self.counts.samples["written"] += sum(len(part.entries) for part in good)
        return True


def samples_in(frame: TallyFrame) -> int:
    """Count the samples that a frame stands for at the end of its pane, native histograms apart."""
    return len(frame.code_row) + SAMPLES_OF_HISTOGRAM * len(frame.service)


def _reason(answer: Answer) -> Outcome:
    said = answer.text.lower()
    return next((outcome for words, outcome in _REASONS if words in said), "refused")


def _short(answer: Answer) -> str:
    return " ".join(answer.text.split())[:200] or f"status {answer.status}"

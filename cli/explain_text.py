"""An account in words for a person on call, and as plain data for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from cli.explain_account import clock
from operators.kernels.episodes.wording import duration_text, value_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.explain_account import Account
    from operators.kernels.scoring.explanation import SignalExplanation

_INDENT: Final = "  "
_WORTH_TELLING: Final = 0.1
"""-log10 of a probability: what happens to four windows in five is not listed one by one."""


def as_data(account: Account) -> dict[str, Any]:
    """Give plain data for JSON."""
    data = asdict(account)
    for told, signal in zip(data["explanation"]["signals"], account.explanation.signals, strict=True):
        told["verdict"] = signal.verdict
    return data


def lines(account: Account) -> Iterator[str]:
    """Write an account, line by line."""
    told = account.explanation
    name = f"{told.service} {told.endpoint}".strip()
    begin, end = clock(told.window_start_ms), clock(told.window_end_ms)
    span = f"from {begin} to {end.split(' ', 1)[1]}"
    yield f"{name}: {told.state} {span}, requests {told.requests:,}, errors {told.errors:,}"
    if not told.whole:
        yield "The window reaches back to before the series' first request, so it is not judged."
    for alert in account.open_alerts:
        yield ""
        yield f"Open: {alert.annotations.get('summary', alert.labels['alertname'])}"
        yield f"{_INDENT}{alert.annotations.get('description', '')}"
        if "members" in alert.annotations:
            yield f"{_INDENT}one incident with: {alert.annotations['members']}"
        yield f"{_INDENT}no anomaly? tailmark feedback {alert.fingerprint}"
    for number, (own, signal) in enumerate(zip(account.signals, told.signals, strict=True)):
        yield ""
        yield f"{signal.verdict[0].upper()}{signal.verdict[1:]}"
        if signal.value is not None:
            yield f"{_INDENT}{own.words}"
        yield f"{_INDENT}{own.opening}"
        yield from (_INDENT + line for line in _inside(number, signal))
    yield ""
    yield f"Silence: {_silence(account)}"
    if account.silence.opening:
        yield f"{_INDENT}{account.silence.opening}"
    yield ""
    yield _replayed(account)


def _inside(number: int, signal: SignalExplanation) -> Iterator[str]:
    """Write what the detector saw of one signal."""
    if signal.warming:
        yield f"warm-up: {signal.known_windows:,} windows known"
    told = [reading for reading in signal.channels if reading.surprise >= _WORTH_TELLING]
    for reading in sorted(told, key=lambda one: -one.surprise):
        yield f"channel {reading.text}"
    if rest := len(signal.channels) - len(told):
        yield f"channels that are not surprised at all: {rest} of {len(signal.channels)}"
    for gate in signal.gates:
        side = "above" if gate.direction == "up" else "below"
        state = "passed" if gate.passed else "not passed"
        yield f"gate {gate.name}: {side} {value_text(number, gate.edge)}, {state}"
    for name, score in signal.detectors.items():
        if len(signal.detectors) > 1:
            yield f"detector {name}: score {score:.2f}"
    if signal.away_windows:
        yield f"away from its level for {signal.away_windows} windows"


def _silence(account: Account) -> str:
    silence, service = account.silence, account.explanation.service
    limit, quiet = duration_text(silence.limit_ms), duration_text(silence.quiet_ms)
    if not silence.learned:
        return f"{service} is too young: its silence means nothing yet"
    if silence.quiet_ms == 0:
        return f"{service} has requests; {limit} without one would be silence, by its own rhythm"
    beyond = "beyond" if silence.quiet_ms >= silence.limit_ms else "within"
    return f"{service} has had no request for {quiet}, {beyond} the {limit} learned for it"


def _replayed(account: Account) -> str:
    looked = f"The detector looked at {account.replayed:,} recorded windows of the series again"
    if account.exact:
        return f"{looked} and came to the recorded scores."
    return (
        f"{looked} and came to other scores than were recorded: its history began earlier than what was read, or the"
        " settings have changed since. Values, bands and scores are the recorded ones; channels are its own."
    )

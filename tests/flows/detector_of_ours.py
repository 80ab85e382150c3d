"""A factory of detectors as somebody else would write one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operators.kernels.scoring.rules import Limits

if TYPE_CHECKING:
    from operators.kernels.scoring.protocol import WindowSpan


def make(span: WindowSpan, state: bytes | None, *, latency_ms: float) -> Limits:
    return Limits(span, state, latency_ms=latency_ms)

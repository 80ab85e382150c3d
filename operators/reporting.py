"""Say why a worker stops while it is still known."""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def reported(function: Callable[P, R]) -> Callable[P, R]:
    """Hand an exception to `sys.excepthook` before it leaves what Bytewax calls.

    In a cluster Bytewax passes on no more than that a thread panicked. The end of an input is no failure.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except StopIteration:
            raise
        except Exception:
            sys.excepthook(*sys.exc_info())
            raise

    return call

"""Flows: one module for each, which wires it and does nothing else.

A flow takes seconds to be imported and to find its cluster. Nothing is read until then, so nothing is lost when a
signal ends the process at once; only then does it get its clean stop (`sources.drain`).
"""

import os
import signal
import sys
from typing import NoReturn


def _leave(*_: object) -> NoReturn:
    """End the process, and not by an exception: libraries that are being imported would take it for a failure."""
    os._exit(0)


# Bytewax's own start, and not that of a test or of another program.
if getattr(sys.modules["__main__"].__spec__, "name", None) == "bytewax.run":
    for _number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(_number, _leave)

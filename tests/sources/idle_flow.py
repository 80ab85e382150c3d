"""A flow for `python -m bytewax.run` that makes its recovery directory ready, says so, and then only counts time.

It ends when the file that `IDLE_STOP` names appears.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.testing import TestingSink

from sources.recovery import bytewax_flags, recovery_of_run
from sources.recovery_store import RecoveryError


class Ticks(StatefulSourcePartition[int, int]):
    """A number every 20 ms."""

    def __init__(self, number: int) -> None:
        self.number = number

    def next_batch(self) -> list[int]:
        if Path(os.environ["IDLE_STOP"]).exists():
            raise StopIteration
        self.number += 1
        return [self.number]

    def next_awake(self) -> datetime:
        return datetime.now(UTC) + timedelta(milliseconds=20)

    def snapshot(self) -> int:
        return self.number


class TickSource(FixedPartitionedSource[int, int]):
    def list_parts(self) -> list[str]:
        return ["ticks"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Ticks:
        return Ticks(resume_state or 0)


def say(line: str) -> None:
    """Write a line that the test waits for."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def flow() -> Dataflow:
    settings = json.loads(os.environ.get("IDLE_SETTINGS", "{}"))
    try:
        recovery = recovery_of_run(settings=settings, constants={"partitions of out": 4})
    except RecoveryError as error:
        say(f"refused: {error}")
        raise SystemExit(1) from None
    flags = bytewax_flags()
    assert flags is not None
    facts = None if recovery is None else [recovery.created, recovery.purged_rows, recovery.resume_epoch]
    say(json.dumps({"process": flags.member.process, "workers": flags.workers, "facts": facts}))
    idle = Dataflow("idle")
    op.output("out", op.input("in", idle, TickSource()), TestingSink([]))
    return idle

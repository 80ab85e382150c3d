"""A flow that counts how often it sees each letter of a fixed log, and can be killed before an epoch is durable.

Called by test_recovery: `counting_flow.py DIRECTORY PREPARE LETTERS_IN_EACH_EPOCH KILL_IN_SNAPSHOT`. Each line of its
output is a letter and its count so far. Offsets, counts and epochs are all that matters here, so there is no Kafka.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main

from sources.recovery import prepare_recovery

LOG = "AARAA"


class Letters(StatefulSourcePartition[str, int]):
    """The log from an offset, in epochs of given lengths."""

    def __init__(self, offset: int, lengths: list[int]) -> None:
        self.offset, self.lengths = offset, lengths

    def next_batch(self) -> list[str]:
        if not self.lengths:
            raise StopIteration
        length = self.lengths.pop(0)
        batch = list(LOG[self.offset : self.offset + length])
        self.offset += length
        return batch

    def snapshot(self) -> int:
        return self.offset


class LetterSource(FixedPartitionedSource[str, int]):
    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def list_parts(self) -> list[str]:
        return ["log"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Letters:
        return Letters(resume_state or 0, self.lengths)


class Printer(StatefulSinkPartition[tuple[str, int], None]):
    def __init__(self, kill_in: int) -> None:
        self.until_killed = kill_in

    def write_batch(self, values: list[tuple[str, int]]) -> None:
        for letter, count in values:
            sys.stdout.write(f"{letter} {count}\n")
            sys.stdout.flush()

    def snapshot(self) -> None:
        self.until_killed -= 1
        if self.until_killed == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class PrinterSink(FixedPartitionedSink[tuple[str, int], None]):
    def __init__(self, kill_in: int) -> None:
        self.kill_in = kill_in

    def list_parts(self) -> list[str]:
        return ["out"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Printer:
        return Printer(self.kill_in)


def counted(state: int | None, _letter: str) -> tuple[int, int]:
    """Count one more."""
    count = (state or 0) + 1
    return count, count


def build(lengths: list[int], kill_in: int) -> Dataflow:
    flow = Dataflow("counting")
    letters = op.key_on("key", op.input("in", flow, LetterSource(lengths)), lambda letter: letter)
    counts = op.stateful_map("count", letters, counted)
    op.output("out", op.map("pair", counts, lambda pair: (pair[0], pair)), PrinterSink(kill_in))
    return flow


def main(directory: str, prepare: str, lengths: str, kill_in: str) -> None:
    if prepare == "prepare":
        prepare_recovery(Path(directory), settings={}, constants={}, partitions=1)
    options: dict[str, Any] = {
        "epoch_interval": timedelta(0),
        "recovery_config": RecoveryConfig(directory, timedelta(0)),
    }
    cli_main(build(json.loads(lengths), int(kill_in)), **options)


if __name__ == "__main__":
    main(*sys.argv[1:])

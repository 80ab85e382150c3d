"""How fast the simulator hands single events to the Kafka client, beside the client with a constant payload.

`python -m benchmarks.simulator` pins itself to one core, generates and produces a million events, produces as many
constant records of the same size, and prints both rates and their ratio. The broker is an embedded one on the other
cores unless `KAFKA_BOOTSTRAP_SERVERS` or `TAILMARK_KAFKA__BOOTSTRAP_SERVERS` names another.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flows.settings import load_settings
from local.install import install
from local.kafka import EmbeddedKafka
from simulator.encode import Records, concat
from simulator.publish import Pace, Publisher, Session, ensure_topic
from simulator.stream import Chunk, Plan, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROUNDS: Final = 3
PARTITIONS: Final = 4
START_MS: Final = 1_760_000_000_000
RATE_PER_S: Final = 20_000.0
DURATION_MS: Final = 50_000
REQUIRED_PER_S: Final = 150_000


@dataclass(frozen=True, slots=True)
class Cost:
    """What a number of records took.

    Attributes:
        records: How many.
        handed_s: Wall time until the last one was handed to the client.
        wall_s: Wall time until the last one was acknowledged.
        cpu_s: CPU time of this process, the threads of the client included.
    """

    records: int
    handed_s: float
    wall_s: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Records handed to the client per second of wall time."""
        return self.records / self.handed_s

    @property
    def rate_of_core(self) -> float:
        """Records per second of CPU time, acknowledgement included: what one core does that has nothing else to do."""
        return self.records / self.cpu_s


def measure(client: Mapping[str, str] | None, topic: str, chunks: Callable[[], Iterable[Chunk]]) -> Cost:
    """Time one pass over chunks, published unless there is no client."""
    publisher = Publisher(client, topic) if client is not None else None
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    if publisher is None:
        records = sum(len(chunk.records) for chunk in chunks())
        handed_s = time.perf_counter() - begun_s
    else:
        session = Session(publisher, None, pace=Pace(START_MS, 0.0), stop=threading.Event(), on_progress=lambda _: None)
        session.publish(chunks())
        records = session.progress.records
        handed_s = time.perf_counter() - begun_s
        publisher.flush()
    return Cost(records, handed_s, time.perf_counter() - begun_s, time.process_time() - begun_cpu_s)


@contextlib.contextmanager
def broker() -> Iterator[Mapping[str, str]]:
    """Give the options of a client of the cluster that the environment names, or of an embedded one."""
    if {"KAFKA_BOOTSTRAP_SERVERS", "TAILMARK_KAFKA__BOOTSTRAP_SERVERS"} & set(os.environ):
        yield load_settings().client()
        return
    with tempfile.TemporaryDirectory() as directory:
        kafka = EmbeddedKafka(Path(directory), runtime=install(say=print))
        with kafka:
            yield kafka.client_options


def main() -> None:
    """Measure and print."""
    plan = Plan(start_ms=START_MS, duration_ms=DURATION_MS, rate_per_s=RATE_PER_S, scenario="demo")
    generated = concat([chunk.records for chunk in record(plan, PARTITIONS)])
    size_bytes = round(sum(map(len, generated.values)) / len(generated))
    constant = Records(
        [b"x" * size_bytes] * len(generated),
        generated.keys,
        generated.partitions,
        generated.arrival_ms,
        generated.contents,
    )
    with broker() as client:
        # One core for this process and all its threads; the broker keeps the others.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        topic = f"benchmark-simulator-{os.getpid()}"
        ensure_topic(client, topic, PARTITIONS)
        ways: dict[str, tuple[Mapping[str, str] | None, Callable[[], Iterable[Chunk]]]] = {
            "client alone, constant payload": (client, lambda: [Chunk(START_MS, Records(), constant)]),
            "generation alone": (None, lambda: record(plan, PARTITIONS)),
            "generation and client": (client, lambda: record(plan, PARTITIONS)),
        }
        best: dict[str, Cost] = {}
        for _ in range(ROUNDS):
            for name, (options, chunks) in ways.items():
                cost = measure(options, topic, chunks)
                if name not in best or cost.handed_s < best[name].handed_s:
                    best[name] = cost
    show(best, size_bytes)
    # Judged by CPU time: wall time on a machine that is busy otherwise says little about the simulator.
    if best["generation and client"].rate_of_core < REQUIRED_PER_S:
        sys.exit(f"under the required {REQUIRED_PER_S:,} records a second of one core")


def show(best: Mapping[str, Cost], size_bytes: int) -> None:
    """Print the best round of each way, and their ratio."""
    print(f"single events of {size_bytes} bytes, one core, best of {ROUNDS} rounds\n")
    print(f"{'':32}{'handed/s':>12}{'acknowledged/s':>16}{'per CPU second':>16}")
    for name, cost in best.items():
        line = f"{name:32}{cost.rate:12,.0f}{cost.records / cost.wall_s:16,.0f}{cost.rate_of_core:16,.0f}"
        print(line)
    alone, together = best["client alone, constant payload"], best["generation and client"]
    print(f"\nratio of the rates handed over: {together.rate / alone.rate:.2f} of the client alone")
    print(f"ratio of the CPU: {together.cpu_s / together.records / (alone.cpu_s / alone.records):.2f} times the client")


if __name__ == "__main__":
    main()

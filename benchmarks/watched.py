"""Runs a program of Bytewax and watches where its CPU time goes: `python -m benchmarks.watched REPORT ARGUMENTS...`.

The worker runs under cProfile, whose clock is the CPU time of the thread, so that waiting costs nothing; what is not
ours (NumPy, msgspec, the client) counts where we called it. The other threads are asked for the time they used, by the
kernel's account. Profiling makes the worker about a tenth slower; it begins with the first batch, after start-up.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import runpy
import sys
import threading
import time
from collections import defaultdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.processes import ROOT
from sources.kafka import KafkaPartition

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOK_S: Final = 0.005
NATIVE_EVERY: Final = 10
"""Looks between two readings of the threads that Python does not know."""

ENGINE: Final = "bytewax"
SNAPSHOT: Final = "snapshot"
SINKS: Final = "sink threads"
NATIVE: Final = "librdkafka"
OTHER: Final = "other threads"

STAGES: Final = (
    ("sources/dead_letters", "dead letters"),
    ("sources/", "consume"),
    ("operators/kernels/decode", "decode"),
    ("operators/kernels/mapping", "decode"),
    ("operators/kernels/intake", "columns"),
    ("operators/kernels/series", "columns"),
    ("operators/kernels/sharding", "shard"),
    ("operators/shard", "shard"),
    ("operators/kernels/census", "census"),
    ("operators/census", "census"),
    ("operators/kernels/scoring", "score"),
    ("operators/score", "score"),
    ("operators/kernels/episodes", "alert"),
    ("operators/alert", "alert"),
    ("operators/kernels/encode", "encode"),
    ("sinks/encoding", "encode"),
    ("operators/kernels/windows", "windows"),
    ("operators/kernels/panes", "windows"),
    ("operators/kernels/watermarks", "windows"),
    ("operators/window", "windows"),
    ("sinks/kafka", "hand to sinks"),
    ("sinks/records", "hand to sinks"),
    ("sinks/", "page"),
)
"""Where a function lies, and the stage that it belongs to; the first match counts. What several stages use (codec,
buckets, vitals) is left out, so that it counts where it was called from."""

SNAPSHOT_FUNCTIONS: Final = {"snapshot", "to_bytes"}


Function = tuple[str, int, str]
"""File, line and name, as cProfile has them."""

_OURS: Final = f"{ROOT}/"
_DEEPEST: Final = 12


def stage_of(function: Function) -> str | None:
    """Name the stage of a function; None when it counts where it was called from."""
    file, _, name = function
    if not file.startswith(_OURS):
        return None
    if name in SNAPSHOT_FUNCTIONS:
        return SNAPSHOT
    inside = file[len(_OURS) :]
    return next((stage for prefix, stage in STAGES if inside.startswith(prefix)), None)


def stages_of(stats: Mapping[Function, tuple[Any, ...]]) -> dict[str, float]:
    """Add up a profile by stage.

    Args:
        stats: As `pstats.Stats.stats`: calls, calls, own time, whole time and callers of each function.

    Returns:
        Seconds in each stage; what nobody of ours called is the engine's.
    """
    used_s: defaultdict[str, float] = defaultdict(float)
    shares: dict[Function, dict[str, float]] = {}
    for function, (_, _, own_s, _, callers) in stats.items():
        stage = stage_of(function)
        if stage is not None:
            used_s[stage] += own_s
        elif not callers:
            used_s[ENGINE] += own_s
        else:
            for caller, (_, _, from_there_s, _) in callers.items():
                for name, share in _shares(caller, stats, shares, 0).items():
                    used_s[name] += from_there_s * share
    return dict(used_s)


def _shares(
    function: Function, stats: Mapping[Function, tuple[Any, ...]], known: dict[Function, dict[str, float]], depth: int
) -> dict[str, float]:
    """Tell to which stages what a function does belongs, in parts of 1."""
    if (stage := stage_of(function)) is not None:
        return {stage: 1.0}
    if function in known:
        return known[function]
    callers = stats[function][4] if function in stats else {}
    whole_s = sum(whole for _, _, _, whole in callers.values())
    if depth == _DEEPEST or not whole_s:
        return {ENGINE: 1.0}
    result: defaultdict[str, float] = defaultdict(float)
    for caller, (_, _, _, from_there_s) in callers.items():
        for name, share in _shares(caller, stats, known, depth + 1).items():
            result[name] += share * from_there_s / whole_s
    known[function] = result
    return result


class Watch(threading.Thread):
    """A thread that looks at the others."""

    def __init__(self) -> None:
        """Prepare to look; `start` begins."""
        super().__init__(name="watch", daemon=True)
        self._used_s: dict[str, float] = {}
        self._stalls_s: list[float] = []
        self._over = threading.Event()
        self._began: dict[str, float] | None = None
        self._worker_began_s = 0.0
        self._snapshot_since_s: float | None = None
        self._profile = cProfile.Profile(time.thread_time)

    def begin(self) -> None:
        """Count from now on; called by the worker when it reads its first batch."""
        self._began = dict(self._used_s)
        self._worker_began_s = time.thread_time()
        self._profile.enable()

    @property
    def began(self) -> bool:
        """Whether counting has begun."""
        return self._began is not None

    def run(self) -> None:
        """Look until it is over."""
        looks = 0
        while not self._over.wait(LOOK_S):
            if looks % NATIVE_EVERY == 0:
                self._read_python()
                self._read_native()
            looks += 1

    def end(self) -> dict[str, object]:
        """Stop, and give the report: CPU seconds by stage, seconds of each snapshot. Called by the worker."""
        worker_s = time.thread_time() - self._worker_began_s
        self._profile.disable()
        self._over.set()
        self.join()
        stats: Any = pstats.Stats(self._profile)
        cpu_s = defaultdict(float, stages_of(stats.stats))
        cpu_s[ENGINE] += worker_s - sum(cpu_s.values())
        for thread, used_s in self._used_s.items():
            cpu_s[thread.partition("/")[0]] += used_s - (self._began or {}).get(thread, 0.0)
        return {"cpu_s": cpu_s, "stalls_s": self._stalls_s}

    def _read_python(self) -> None:
        """Read what Python's own threads have used; those that end keep their last account."""
        for thread in threading.enumerate():
            if thread is self or thread is threading.main_thread() or thread.ident is None:
                continue
            try:
                used_s = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            except OSError:
                continue
            # The threads of a sink are named after its transactional id.
            group = SINKS if thread.name.startswith("anomaly.") else OTHER
            self._used_s[f"{group}/{thread.ident}/{thread.name}"] = used_s

    def _read_native(self) -> None:
        """Read what librdkafka's threads have used."""
        for task in Path("/proc/self/task").iterdir():
            try:
                if (task / "comm").read_text(encoding="ascii").startswith("rdk:"):
                    nanoseconds = int((task / "schedstat").read_text(encoding="ascii").split()[0])
                    self._used_s[f"{NATIVE}/{task.name}"] = nanoseconds / 1e9
            except OSError:
                continue

    def snapshot_began(self) -> None:
        """Note that the worker takes a snapshot of its first source in this epoch."""
        if self._snapshot_since_s is None:
            self._snapshot_since_s = time.monotonic()

    def read_again(self) -> None:
        """Note that the worker reads: until now it stood still for the snapshot."""
        if self._snapshot_since_s is not None:
            self._stalls_s.append(time.monotonic() - self._snapshot_since_s)
            self._snapshot_since_s = None


def main() -> None:
    """Run Bytewax as `python -m bytewax.run` does, with a watch beside it."""
    report, sys.argv = Path(sys.argv[1]), ["bytewax.run", *sys.argv[2:]]
    watch = Watch()
    read, snapshot = KafkaPartition.next_batch, KafkaPartition.snapshot

    @wraps(snapshot)
    def snapshot_noted(self: KafkaPartition) -> bytes:
        watch.snapshot_began()
        return snapshot(self)

    @wraps(read)
    def next_batch(self: KafkaPartition) -> Any:  # noqa: ANN401 - whatever it gives
        if not watch.began:
            watch.begin()
        watch.read_again()
        return read(self)

    KafkaPartition.next_batch = next_batch  # type: ignore[method-assign]
    KafkaPartition.snapshot = snapshot_noted  # type: ignore[method-assign]
    watch.start()
    try:
        runpy.run_module("bytewax.run", run_name="__main__", alter_sys=True)
    finally:
        report.write_text(json.dumps(watch.end()), encoding="utf-8")


if __name__ == "__main__":
    main()

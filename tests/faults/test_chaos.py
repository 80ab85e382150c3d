"""Anything at any moment, for as long as asked: afterwards the topics read as if nothing had happened."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from local.install import install
from local.kafka import EmbeddedKafka
from tests.faults.conftest import TABLE
from tests.faults.story import Beat, Feeder, endless_beats, last_beat, outcome_in, settings_of, topics_on
from tests.flow_process import FlowProcess, free_ports

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

PACE_S = 0.2
START_S = 60.0
FINAL_S = 900.0
BROKERS = (1, 2, 3)
BACKUP_S = 600
PLACE = re.compile(r"`[^`]*`( partition \d+)?|\S*/\S*|\d+")


def beats_until(enough: threading.Event, seed: int) -> Iterator[Beat]:
    """Tell a story until somebody has heard enough, then end it."""
    number = 0
    for number, beat in enumerate(endless_beats(seed), start=1):  # noqa: B007 - the last number counts
        yield beat
        if enough.is_set():
            break
    yield last_beat(number)


class Chaos:
    """A flow on three brokers, and everything that can be done to both.

    Attributes:
        done: How often each fault was done.
        stops: How often the flow stopped though nobody had touched it, by what it said.
    """

    def __init__(self, brokers: EmbeddedKafka, env: dict[str, str], directory: Path, rng: random.Random) -> None:
        self._brokers, self._rng = brokers, rng
        self._recovery, self._backup = directory / "recovery", directory / "backup"
        self._env = env
        self.flow = FlowProcess(env, self._recovery, backup_s=BACKUP_S)
        self.done: Counter[str] = Counter()
        self.stops: Counter[str] = Counter()
        self._faults: dict[str, tuple[int, Callable[[], None]]] = {
            "flow killed": (8, self._kill),
            "one process of the flow killed": (4, self._kill_one),
            "flow killed and rescaled": (4, self._kill_and_rescale),
            "flow drained and rescaled": (3, self._drain_and_rescale),
            "flow halted for a while": (2, self._halt),
            "older backup restored": (1, self._restore),
            "broker killed": (2, self._kill_broker),
            "broker frozen": (2, self._freeze_broker),
            "broker restarted": (1, lambda: self._brokers.restart(self._any_broker())),
        }

    def start(self) -> None:
        """Start the flow, on ports that are free, and wait until all processes are up."""
        self.flow.env = {**self._env, "TAILMARK_PROMETHEUS__PORT": str(free_ports(1)[0])}
        self.flow.start()

    def strike(self) -> None:
        """Do something bad, and start the flow again if it stopped."""
        if self._ended():
            self.stops[self._reap()] += 1
        names = list(self._faults)
        name = self._rng.choices(names, [self._faults[each][0] for each in names])[0]
        self._faults[name][1]()
        self.done[name] += 1
        if self._ended():
            self._reap()
        if not self.flow.running:
            self.start()

    def settle(self) -> None:
        """End the flow cleanly, starting it again if that is what it takes."""
        deadline = time.monotonic() + FINAL_S
        while time.monotonic() < deadline:
            self.flow.serving()
            self.flow.signal(signal.SIGTERM)
            codes, _ = self.flow.wait()
            if set(codes) == {0}:
                return
            self.start()
        pytest.fail("the flow can't be stopped cleanly any more")

    def _ended(self) -> bool:
        return any(process.poll() is not None for process in self.flow.running)

    def _reap(self) -> str:
        """End the processes that lost another one, and return why the first one stopped."""
        output = self.flow.output()
        self.flow.kill()
        self.flow.wait()
        lines = [line for line in output.splitlines() if line.startswith("tailmark: ")]
        return PLACE.sub("…", lines[0]) if lines else "without a word"

    def _kill(self) -> None:
        self.flow.kill()
        self._reap()

    def _kill_one(self) -> None:
        victim = self._rng.choice(self.flow.running)
        victim.kill()
        victim.wait()
        time.sleep(self._rng.uniform(0.0, 1.0))
        self._reap()

    def _kill_and_rescale(self) -> None:
        self._kill()
        self.flow.processes = self._rng.randint(1, 3)

    def _drain_and_rescale(self) -> None:
        self.flow.signal(signal.SIGTERM)
        time.sleep(self._rng.uniform(0.0, 3.0))
        self._kill()
        self.flow.processes = self._rng.randint(1, 3)

    def _halt(self) -> None:
        self.flow.signal(signal.SIGSTOP)
        time.sleep(self._rng.uniform(0.5, 8.0))
        self.flow.signal(signal.SIGCONT)

    def _restore(self) -> None:
        """Go back to the last backup, and take the next one."""
        self._kill()
        if self._backup.exists():
            shutil.rmtree(self._recovery)
            shutil.copytree(self._backup, self._recovery)
        else:
            shutil.copytree(self._recovery, self._backup)

    def _any_broker(self) -> int:
        return self._rng.choice(BROKERS)

    def _kill_broker(self) -> None:
        broker = self._any_broker()
        self._brokers.kill(broker)
        time.sleep(self._rng.uniform(0.0, 5.0))
        self._brokers.start_broker(broker)

    def _freeze_broker(self) -> None:
        broker = self._any_broker()
        self._brokers.freeze(broker)
        time.sleep(self._rng.uniform(0.5, 10.0))
        self._brokers.thaw(broker)


@pytest.mark.chaos
@pytest.mark.timeout(0)
def test_topics_read_as_if_nothing_had_happened_whatever_happens(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    option = request.config.getoption
    faults, seed = int(option("--chaos-faults")), int(option("--chaos-seed"))
    pause_s = float(option("--chaos-minutes")) * 60 / faults
    rng = random.Random(seed)
    with EmbeddedKafka(tmp_path / "kafka", brokers=len(BROKERS), runtime=install(say=print)) as brokers:
        kafka, topics = topics_on(brokers)
        chaos = Chaos(brokers, settings_of(kafka, topics), tmp_path, rng)
        feeder = Feeder(kafka, topics.events, [], pace_s=PACE_S)
        feeder.beats = beats_until(feeder.hurry, seed)
        feeder.start()
        chaos.start()
        for _ in range(faults):
            struck_s = time.monotonic()
            time.sleep(rng.uniform(0.0, pause_s))
            chaos.strike()
            time.sleep(max(0.0, struck_s + pause_s - time.monotonic()))
        feeder.finish()
        chaos.settle()
        undisturbed = replace(
            topics,
            **{role: f"{getattr(topics, role)}-again" for role in ("windows", "alerts", "alerts_state", "dead_letter")},
        )
        for given, recovery in ((topics, tmp_path / "recovery"), (undisturbed, None)):
            env = settings_of(kafka, given, KAFKA__STOP_AT_END="true")
            codes, output = FlowProcess(env, recovery, backup_s=BACKUP_S).run(FINAL_S)
            assert codes == [0], output
        found, expected = outcome_in(kafka, topics), outcome_in(kafka, undisturbed)
    lost, surplus = expected.records - found.records, found.records - expected.records
    records = (
        f"{found.count('windows')} windows, {found.count('alerts')} alerts, {found.count('dead_letter')} dead letters"
    )
    request.config.stash[TABLE] = [
        *(f"{times:6d}  {name}" for name, times in sorted(chaos.done.items())),
        *(f"{times:6d}  stopped by itself: {why}" for why, times in sorted(chaos.stops.items())),
        f"{found.records.total():6d}  records: {records}",
        f"{surplus.total():6d}  of them there twice, or different",
        f"{lost.total():6d}  lost",
    ]
    assert (list(lost)[:5], list(surplus)[:5]) == ([], [])

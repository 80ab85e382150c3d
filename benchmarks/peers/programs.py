"""The programs of the peers, made ready in a directory of their own: nothing of them is a dependency of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.processes import BenchmarkError
from local.install import install
from local.runtime import KAFKA_VERSION, default_cache_dir, download

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

JARS: Final = {
    f"org.apache.kafka:kafka-streams:{KAFKA_VERSION}": (
        "bd73f3805e116f711e8456ee89a8a5b43ff5dcf5a5bb865afae29deae89e7c4b"
    ),
    "org.rocksdb:rocksdbjni:10.1.3": "e7f925287d9fe2574fb7c7a86f7facaa9b8ab602a2eed0e598bf633528121498",
}
"""What Kafka Streams needs beside Apache Kafka: SHA-256 by coordinate."""

COMPILER: Final = {"org.eclipse.jdt:ecj:3.42.0": "29f6d3918ee02db4400c103bc25dd90a22491c3a395867d9393070cb96a7dd29"}
"""A Java compiler: the Java that runs Kafka has none."""

_HERE: Final = Path(__file__).parent
_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that computes the same windows.

    Attributes:
        name: For people.
        kind: For the names of topics.
        share: Share of the benchmark's events that it is given, so that it ends within minutes.
        command: How to run it; servers, input topic, output topic, group and a directory for its state follow.
    """

    name: str
    kind: str
    share: float
    command: tuple[str, ...]


def prepare(directory: Path, say: Callable[[str], None]) -> list[Peer]:
    """Fetch, compile and install what the peers need.

    Args:
        directory: Empty room for what is made.
        say: Told what takes its time.

    Returns:
        The peers, ready to be run.

    Raises:
        BenchmarkError: A peer can't be made.
        EmbeddedKafkaError: A download is impossible.
    """
    say("peers: fetching Kafka Streams (75 MB, once)")
    runtime = install(say=say)
    jars = [*runtime.classpath.split(os.pathsep), *map(str, download(JARS, default_cache_dir()))]
    classes = directory / "classes"
    classpath = os.pathsep.join([*jars, str(classes)])
    [compiler] = download(COMPILER, default_cache_dir())
    source = str(_HERE / "SlidingP99.java")
    _make([str(runtime.java), "-jar", str(compiler), "-21", "-cp", classpath, "-d", str(classes), source])
    say("peers: installing Quix Streams (20 s)")
    python = str(directory / "quix" / "bin" / "python")
    _make([sys.executable, "-m", "venv", str(directory / "quix")])
    lock = str(_HERE / "requirements.lock")
    _make([python, "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", "--no-deps", "-r", lock])
    java = (str(runtime.java), "--enable-native-access=ALL-UNNAMED", "-cp", classpath, "SlidingP99")
    return [
        Peer("Kafka Streams, tuned by hand and without state that survives", "streams-tuned", 1.0, (*java, "tuned")),
        Peer("Kafka Streams, its DSL", "streams-dsl", 1.0, (*java, "dsl")),
        Peer("Quix Streams", "quix", 0.4, (python, str(_HERE / "quix.py"))),
    ]


def _make(command: Sequence[str]) -> None:
    """Run a step that makes something.

    Raises:
        BenchmarkError: It failed; the message is the end of what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-500:]
        raise BenchmarkError(f"`{' '.join(command[:3])}` ended with {done.returncode}: {said}")

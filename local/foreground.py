"""Run an embedded Apache Kafka in the foreground until a signal ends it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer

from local.install import install
from local.kafka import EmbeddedKafka
from local.runtime import KAFKA_VERSION, Say
from local.security import Scram

CHECK_EVERY_S = 0.5


class _Stopped(BaseException):
    """A signal asked for the end; no error, so that nothing on the way out handles it as one."""


def run_in_foreground(data_dir: Path, *, port: int, brokers: int, security: Scram | None, say: Say) -> None:
    """Start the brokers, print one line when clients can connect, and return after SIGINT or SIGTERM.

    Args:
        data_dir: Where records and logs are kept.
        port: Port of the first broker; 0 chooses free ones.
        brokers: How many.
        security: None for plaintext; else the login is written to `client.env` in the data directory.
        say: Told about a download.

    Raises:
        EmbeddedKafkaError: It cannot start, or a broker ended by itself.
    """
    try:
        with _signals_raise():
            runtime = install(say=say)
            with EmbeddedKafka(data_dir, port=port, brokers=brokers, security=security, runtime=runtime) as kafka:
                login = "" if security is None else f"; log in with {_write_login(data_dir, kafka.client_options)}"
                where = f"Apache Kafka {KAFKA_VERSION} ready at {kafka.bootstrap_servers}{login}"
                typer.echo(f"{where}; log: {kafka.log_path()}; Ctrl-C stops it")
                while True:
                    threading.Event().wait(CHECK_EVERY_S)
                    kafka.check()
    except _Stopped:
        return


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into an exception, so that it ends a start too; ignore those after it."""
    watched = (signal.SIGINT, signal.SIGTERM)

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in watched:
            signal.signal(number, signal.SIG_IGN)
        raise _Stopped

    earlier = {number: signal.signal(number, stop) for number in watched}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _write_login(data_dir: Path, options: dict[str, str]) -> Path:
    """Write the flows' settings for this cluster, to be sourced by a shell; it holds a password, so it is private."""
    path = data_dir.absolute() / "client.env"
    path.touch(mode=0o600)
    lines = [f"export TAILMARK_KAFKA__BOOTSTRAP_SERVERS='{options['bootstrap.servers']}'\n"]
    lines += [
        f"export TAILMARK_KAFKA__OPTIONS__{key.upper().replace('.', '_')}='{value}'\n"
        for key, value in options.items()
        if key != "bootstrap.servers"
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path

"""`python -m local`: an embedded Apache Kafka in the foreground, what it needs, and the demo."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.settings import SettingsError
from local.demo.errors import DemoError
from local.demo.run import Options, run
from local.errors import EmbeddedKafkaError
from local.foreground import run_in_foreground
from local.install import install
from local.runtime import KAFKA_VERSION, default_cache_dir, locked_jars
from local.security import Scram

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The whole pipeline on one machine.")


def _say(line: str) -> None:
    """Tell the person who waits; results go to standard output, this does not."""
    typer.echo(line, err=True)


@app.command()
def kafka(
    data_dir: Annotated[Path, typer.Option(help="Where records and logs are kept.")],
    port: Annotated[int, typer.Option(help="Port of the first broker; 0 chooses free ones.", min=0, max=65_000)] = 9092,
    brokers: Annotated[int, typer.Option(help="How many; from three, one may fail.", min=1, max=9)] = 1,
    *,
    secure: Annotated[
        bool, typer.Option("--secure", help="TLS and SASL; DATA_DIR/client.env tells the flows how to log in.")
    ] = False,
) -> None:
    """Run Apache Kafka until Ctrl-C or SIGTERM."""
    run_in_foreground(data_dir, port=port, brokers=brokers, security=Scram() if secure else None, say=_say)


@app.command()
def fetch(
    repository: Annotated[str | None, typer.Option(help="Address of a Maven repository to use for Central.")] = None,
) -> None:
    """Download Apache Kafka into the cache, once; later starts need no network."""
    install(repository=repository, say=_say)
    typer.echo(f"Apache Kafka {KAFKA_VERSION} is in {default_cache_dir()}")


@app.command()
def demo(
    duration: Annotated[
        float | None, typer.Option(min=1, help="Seconds that events flow, starting and stopping left out; no end.")
    ] = None,
    speed: Annotated[float, typer.Option(min=1, max=120, help="Event time per wall time.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated world.")] = 7,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", dir_okay=False, help="Draw the view as it is in the end.")
    ] = None,
) -> None:
    """Show the pipeline at work while simulated services go wrong; Ctrl-C ends it.

    KAFKA_BOOTSTRAP_SERVERS names a Kafka to use, with topics of its own, in place of an embedded one.
    """
    try:
        run(Options(duration, speed, seed, picture), os.environ)
    except (DemoError, SettingsError) as error:
        _say(f"error: {error}")
        raise typer.Exit(2 if isinstance(error, SettingsError) else 1) from error


@app.command(hidden=True)
def lock() -> None:
    """Print a new `jars_lock.py` after a change of version in `runtime.py`."""
    typer.echo('"""SHA-256 of every jar that the embedded Apache Kafka runs with; made by `python -m local lock`."""')
    typer.echo("# ruff: noqa: E501 - a checksum is not broken into lines\n")
    typer.echo("JARS = {")
    for coordinate, sha256 in sorted(locked_jars(default_cache_dir()).items()):
        typer.echo(f'    "{coordinate}": "{sha256}",')
    typer.echo("}")


def main() -> None:
    """Run the command line; what the embedded Kafka cannot do is one line and exit code 1."""
    try:
        app(prog_name="python -m local")
    except EmbeddedKafkaError as error:
        _say(f"error: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()

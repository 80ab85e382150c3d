"""`python -m benchmarks`: what Tailmark costs, beside what can't be avoided, in one run."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from confluent_kafka import KafkaException

from benchmarks.bench import Bench
from benchmarks.cluster import open_cluster
from benchmarks.processes import BenchmarkError
from benchmarks.report import Figure, print_figures, write_json
from local.errors import EmbeddedKafkaError
from simulator.publish import PublishError

if TYPE_CHECKING:
    from collections.abc import Iterable

PARTS: Final = (
    "throughput", "series", "garbage", "idle", "latency", "stages", "recovery", "growth", "commits", "archive",
    "bridge", "peers"
)  # fmt: skip

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def say(line: str) -> None:
    """Tell the person who waits; the figures go to standard output, this does not."""
    print(line, file=sys.stderr, flush=True)


def measure(bench: Bench, parts: Iterable[str]) -> list[Figure]:
    """Measure parts one after the other, and print each when it is done."""
    figures: list[Figure] = []
    for part in parts:
        began_s = time.monotonic()
        found = importlib.import_module(f"benchmarks.{part}").run(bench)
        print_figures(f"{part} ({time.monotonic() - began_s:.0f} s)", found)
        figures += found
    return figures


@app.command()
def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Any of {', '.join(PARTS)}; all when none.")] = None,
    *,
    events: Annotated[int, typer.Option(min=1_000, help="Events that throughput is measured with.")] = 1_000_000,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions; medians of their ratios are reported.")] = 3,
    seconds: Annotated[int, typer.Option(min=2, help="How long live traffic is watched.")] = 40,
    json: Annotated[Path | None, typer.Option(help="Write all figures here, too.")] = None,
) -> None:
    """Measure the anomaly flow, with recovery, scoring and all sinks on, and print ratios beside their targets.

    Two things are compared only where they ran in turns, in this run: other numbers depend on the machine and on what
    else it does. Kafka is an embedded one, or the one that KAFKA_BOOTSTRAP_SERVERS names.
    """
    chosen = parts or list(PARTS)
    if unknown := [part for part in chosen if part not in PARTS]:
        say(f"benchmarks: no part is called `{unknown[0]}`; there are {', '.join(PARTS)}")
        raise typer.Exit(2)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tailmark-bench-") as directory,
            open_cluster(os.environ, Path(directory), say) as cluster,
        ):
            figures = measure(Bench(cluster, events, runs, seconds, say), chosen)
    except (BenchmarkError, EmbeddedKafkaError, PublishError) as error:
        say(f"benchmarks: {error}")
        raise typer.Exit(1) from None
    except KafkaException as error:
        say(f"benchmarks: kafka can't be used: {error.args[0].str()}")
        raise typer.Exit(1) from None
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print_figures(f"all: {os.cpu_count()} cores, load average {load} over 1, 5 and 15 minutes", figures)
    if json is not None:
        write_json(json, figures)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")

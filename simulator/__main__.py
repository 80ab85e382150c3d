"""`python -m simulator`: a fake world, or recorded traffic, to Kafka."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from flows.settings import Settings, SettingsError, load_settings
from simulator.disorder import NONE, Disturbances
from simulator.encode import ENCODINGS
from simulator.publish import Pace, Publisher, PublishError, Session, ensure_topic, retention_ms
from simulator.replay import FORMATS, Bad, Layout, ReplayError, first_time_ms, replay, sniff
from simulator.report import Reporter, clock, summary
from simulator.scenarios import SCENARIOS
from simulator.stream import Plan, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from simulator.stream import Chunk

_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")

_EPILOG: Final = """Examples:

Tell the story of the demo, live: `python -m simulator`

Tell it within a minute: `python -m simulator --speed 30 --duration 30m`

Six hours for an evaluation: `python -m simulator --backfill --duration 6h --scenario random --incidents-per-hour 4`

A million events over 100,000 series, for a benchmark:
`python -m simulator --backfill --duration 100s --rate 10000 --services 1000 --endpoints 100 --scenario calm --clean`

What a proxy wrote, at once: `python -m simulator replay access.log --at-once`

Kafka is where TAILMARK_KAFKA__BOOTSTRAP_SERVERS, or the file that TAILMARK_CONFIG names, says it is.
"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


def fail(message: str, code: int) -> NoReturn:
    """End the program with one line."""
    print(f"simulator: {message}", file=sys.stderr)
    raise typer.Exit(code)


def duration_ms(text: str) -> int:
    """Read `90`, `90s`, `30m`, `2h`, `1d`.

    Raises:
        typer.Exit: It is no duration.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        fail(f"`--duration` must be a number with ms, s, m, h or d; got {text!r}", 2)
    return round(float(found[1]) * _UNIT_MS[found[2] or "s"])


def time_ms(text: str) -> int:
    """Read a time: ISO 8601, UTC where it names no zone, or milliseconds since the epoch.

    Raises:
        typer.Exit: It is no time.
    """
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"`--start` must be ISO 8601 or milliseconds since 1970; got {text!r}", 2)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


_PLAN: Final = Plan(start_ms=0)
_START_HELP: Final = "Event time of the beginning: ISO 8601 or ms. Now; with --duration, so that it does not pass now."
_DIRT: Final = Disturbances()

Speed = Annotated[float, typer.Option(min=0, help="Event time per wall time; 1 is live, 0 as fast as possible.")]
Heartbeat = Annotated[int, typer.Option(min=0, help="Event time between heartbeats, milliseconds; 0: none.")]
Partitions = Annotated[int, typer.Option(min=1, help="Partitions of the events topic, when it has to be made.")]


@app.callback(invoke_without_command=True, epilog=_EPILOG)
def simulate(
    context: typer.Context,
    *,
    scenario: Annotated[str, typer.Option(help=f"What goes wrong: {', '.join(SCENARIOS)}.")] = _PLAN.scenario,
    incidents_per_hour: Annotated[float, typer.Option(help="Mean, in scenario random.")] = _PLAN.incidents_per_hour,
    seed: Annotated[int, typer.Option(help="Fixes every random choice.")] = _PLAN.seed,
    speed: Speed = 1.0,
    backfill: Annotated[bool, typer.Option("--backfill", help="As fast as possible, up to now.")] = False,
    start: Annotated[str | None, typer.Option(help=_START_HELP)] = None,
    duration: Annotated[str | None, typer.Option(help="Event time it lasts, such as 90s, 30m, 2h. No end.")] = None,
    rate: Annotated[float, typer.Option(help="Events per second of event time, a day's average.")] = _PLAN.rate_per_s,
    services: Annotated[int | None, typer.Option(help="Services of a made-up world. The web shop.")] = None,
    endpoints: Annotated[int | None, typer.Option(help="Endpoints of each of them.")] = None,
    encoding: Annotated[str, typer.Option(help=f"Of the values: {', '.join(ENCODINGS)}.")] = _PLAN.encoding,
    batch_size: Annotated[int, typer.Option(help="Events in an array or NDJSON value, at most.")] = _PLAN.batch_size,
    event_ids: Annotated[bool, typer.Option("--event-ids", help="Give each event an event_id.")] = False,
    disorder: Annotated[float, typer.Option(help="Share of events up to 2 s out of order.")] = _DIRT.disorder_ratio,
    late: Annotated[float, typer.Option(help="Share of events 15 to 60 s late.")] = _DIRT.late_ratio,
    duplicates: Annotated[float, typer.Option(help="Share of events sent twice.")] = _DIRT.duplicate_ratio,
    malformed: Annotated[float, typer.Option(help="Malformed events for each good one.")] = _DIRT.malformed_ratio,
    clock_skew: Annotated[float, typer.Option(help="Share stamped by a clock up to 1 s wrong.")] = _DIRT.skew_ratio,
    clean: Annotated[bool, typer.Option("--clean", help="Disturb nothing, whatever the shares above.")] = False,
    heartbeat_ms: Heartbeat = _PLAN.heartbeat_ms,
    partitions: Partitions = 4,
    truth: Annotated[bool, typer.Option(help="Write the incidents to the truth topic.")] = True,
) -> None:
    """Publish a seeded fake world, with what goes wrong in it, to Kafka."""
    if context.invoked_subcommand is not None:
        return
    length_ms = None if duration is None else duration_ms(duration)
    pace_of_time = 0.0 if backfill else speed
    pace = Pace(_begin_ms(start, length_ms, pace_of_time, backfill=backfill), pace_of_time)
    try:
        dirt = Disturbances(
            disorder_ratio=disorder,
            late_ratio=late,
            duplicate_ratio=duplicates,
            malformed_ratio=malformed,
            skew_ratio=clock_skew,
        )
        plan = Plan(
            seed=seed,
            start_ms=pace.start_ms,
            duration_ms=length_ms,
            rate_per_s=rate,
            services=services,
            endpoints=endpoints,
            scenario=scenario,
            incidents_per_hour=incidents_per_hour,
            disturbances=NONE if clean else dirt,
            encoding=encoding,
            batch_size=batch_size,
            event_ids=event_ids,
            heartbeat_ms=heartbeat_ms,
        )
        record(plan, partitions)
    except ValueError as error:
        fail(str(error), 2)
    topics = Topics(partitions=partitions, with_truth=truth)
    _play(lambda count: record(plan, count), pace, end_ms=plan.end_ms, topics=topics, settings=_settings())


def _begin_ms(start: str | None, length_ms: int | None, speed: float, *, backfill: bool) -> int:
    """Choose the event time of the beginning: the one asked for, now, or such that what is accelerated ends now.

    Events of the future would open alerts that Alertmanager refuses, and dashboards would end before them.
    """
    if backfill and length_ms is None:
        fail("--backfill needs --duration, or it would never end", 2)
    if start is not None:
        return time_ms(start)
    now_ms = int(time.time()) * 1000
    if length_ms is None or 0 < speed <= 1:
        return now_ms
    return now_ms - length_ms + (int(length_ms / speed) if speed else 0)


@app.command("replay", epilog="Example: `python -m simulator replay access.log --speed 60`")
def replay_command(
    file: Annotated[Path, typer.Argument(help="NDJSON, Parquet (or a directory of it), nginx or Envoy access log.")],
    *,
    kind: Annotated[str | None, typer.Option("--format", help=f"{', '.join(FORMATS)}. Recognised by itself.")] = None,
    speed: Speed = 1.0,
    at_once: Annotated[bool, typer.Option("--at-once", help="As fast as possible, like --speed 0.")] = False,
    service: Annotated[str | None, typer.Option(help="Service of access-log lines, in place of the host.")] = None,
    heartbeat_ms: Heartbeat = _PLAN.heartbeat_ms,
    partitions: Partitions = 4,
) -> None:
    """Publish recorded traffic to Kafka, at its own pace, accelerated, or at once.

    Recorded JSON lines are published as they are; lines that are no events are counted and left out.
    """
    settings = _settings()
    layout = Layout(
        fields={str(name): path for name, path in settings.events.fields.items()},
        timestamp_unit=settings.events.timestamp_unit,
        service=service,
    )
    if kind is not None and kind not in FORMATS:
        fail(f"`--format` must be one of {', '.join(FORMATS)}; got {kind!r}", 2)
    bad = Bad()
    try:
        found = kind or sniff(file)
        begin_ms = first_time_ms(file, found, layout)
    except ReplayError as error:
        fail(str(error), 2)

    def chunks(count: int) -> Iterable[Chunk]:
        return replay(file, found, layout=layout, partitions=count, heartbeat_ms=heartbeat_ms, bad=bad)

    pace = Pace(begin_ms, 0.0 if at_once else speed)
    topics = Topics(partitions=partitions, with_truth=False)
    _play(chunks, pace, end_ms=None, topics=topics, settings=settings)
    if str(bad):
        print(bad, file=sys.stderr)


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        fail(str(error), 2)


@dataclass(frozen=True, slots=True)
class Topics:
    """How topics are made and used.

    Attributes:
        partitions: Of the events topic, when it has to be made.
        with_truth: Whether the truth is written.
    """

    partitions: int
    with_truth: bool


def _play(
    chunks: Callable[[int], Iterable[Chunk]], pace: Pace, *, end_ms: int | None, topics: Topics, settings: Settings
) -> None:
    """Publish chunks until they end or somebody stops it, and say what was sent."""
    stop = threading.Event()
    _stop_on_signals(stop)
    names = settings.kafka.topics
    client = settings.client({"client.id": "tailmark-simulator"})
    begun_s = time.monotonic()
    try:
        count = ensure_topic(client, names.events, topics.partitions)
        _warn_of_retention(retention_ms(client, names.events), names.events, pace.start_ms)
        events = Publisher(client, names.events)
        truth = None
        if topics.with_truth:
            ensure_topic(client, names.truth, 1)
            truth = Publisher(client, names.truth)
        with Reporter(pace.start_ms, end_ms) as reporter:
            session = Session(events, truth, pace=pace, stop=stop, on_progress=reporter.update)
            session.publish(chunks(count))
            for publisher in filter(None, (events, truth)):
                publisher.flush()
    except (PublishError, ReplayError) as error:
        fail(str(error), 1)
    delivered = events.delivered + (truth.delivered if truth else 0)
    elapsed_s = time.monotonic() - begun_s
    print(summary(session.progress, delivered, pace.start_ms, elapsed_s, stopped=stop.is_set()))


def _warn_of_retention(kept_ms: int | None, topic: str, start_ms: int) -> None:
    """Warn before old event times are written to where the broker soon deletes them."""
    if kept_ms is not None and start_ms < time.time() * 1000 - kept_ms:
        days = kept_ms / _UNIT_MS["d"]
        print(
            f"simulator: warning: it begins {clock(start_ms)}, but {topic} keeps {days:.3g} days of event time; "
            "raise its retention.ms, or the broker deletes what is older",
            file=sys.stderr,
        )


def _stop_on_signals(stop: threading.Event) -> None:
    """Let the first Ctrl-C or SIGTERM end the sending in good order, and the second end the program."""

    def on_signal(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


if __name__ == "__main__":
    app(prog_name="python -m simulator")

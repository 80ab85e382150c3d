"""The reader of the alert topics: what it takes, what it passes over, and where it begins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from operators.kernels.encode import AlertRecord
from sinks.alertmanager_episodes import LOOKBACK_MS, SETTLED_AFTER_EPOCHS, AlertEpisodes, Standing
from sinks.alertmanager_log import AlertLog
from tests.kafka_log import NewRecord, create_topics, produce
from tests.real_alertmanager import time_ms, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import KafkaCluster, Topics

PARTITIONS = 2


def now_ms() -> int:
    return int(time.time() * 1_000)


def record(status: str, service: str, starts_at_ms: int) -> AlertRecord:
    labels = {"alertname": "LatencyAnomaly", "service": service, "severity": "warning"}
    ends_at_ms = None if status == "firing" else starts_at_ms + 1_000
    return AlertRecord(
        "alert/1", f"print-{service}", status, labels, {}, starts_at_ms, ends_at_ms, starts_at_ms, "latency",
        1.0, 1.0, 2.0, False,  # noqa: FBT003 - `flapping`, the last field
    )  # fmt: skip


def state(record: AlertRecord, written_ms: int) -> NewRecord:
    """Give the record on the compacted topic: a tombstone for what is over."""
    id_ = f"{record.fingerprint}|{record.starts_at_ms}|{record.status}".encode()
    value = msgspec.json.encode(record) if record.status == "firing" else None
    return NewRecord(value, record.fingerprint.encode(), 0, (("id", id_),), written_ms)


def transition(record: AlertRecord, written_ms: int) -> NewRecord:
    return NewRecord(msgspec.json.encode(record), record.fingerprint.encode(), 0, (), written_ms)


@pytest.fixture
def read(kafka: KafkaCluster, topics: Topics) -> Iterator[Callable[[], tuple[AlertEpisodes, AlertLog]]]:
    create_topics(kafka.client_options, [topics.alerts, topics.alerts_state], partitions=PARTITIONS)
    started: list[AlertLog] = []

    def start() -> tuple[AlertEpisodes, AlertLog]:
        episodes = AlertEpisodes(max_age_ms=300_000)
        names = topics.alerts, topics.alerts_state
        log = AlertLog(kafka.client_options, topics.prefix, names, episodes, changed=lambda: None)
        log.start()
        started.append(log)
        until(lambda: log.synced, lambda: "it was never read to its end")
        return episodes, log

    yield start
    for log in started:
        log.close(10.0)


def told(episodes: AlertEpisodes) -> dict[str, str]:
    """Give the state of each service that an Alertmanager would be told of, once nothing is held any more."""
    now = now_ms()
    for epochs in (0, SETTLED_AFTER_EPOCHS):
        alerts = episodes.told(now, horizon_ms=60_000, standing=Standing(behind=False, epochs=epochs))
    bodies: list[dict[str, Any]] = [alert.body for alert in alerts]
    return {one["labels"]["service"]: "open" if time_ms(one["endsAt"]) > now else "over" for one in bodies}


def test_what_is_open_is_read_however_old_and_what_ended_of_late(
    kafka: KafkaCluster, topics: Topics, read: Callable[[], tuple[AlertEpisodes, AlertLog]]
) -> None:
    now, hours_ago = now_ms(), now_ms() - 6 * 3_600_000
    old, over, late = (record("firing", name, hours_ago) for name in ("old", "over", "late"))
    ends = {name: record("resolved", name, hours_ago) for name in ("over", "late")}
    long_ago = now - LOOKBACK_MS - 60_000
    produce(
        kafka.client_options,
        topics.alerts_state,
        [state(old, hours_ago), state(over, hours_ago), state(late, hours_ago), state(ends["over"], long_ago),
         state(ends["late"], now)],
    )  # fmt: skip
    produce(
        kafka.client_options,
        topics.alerts,
        [transition(one, hours_ago) for one in (old, over, late)]
        + [transition(ends["over"], long_ago), transition(ends["late"], now)],
    )
    episodes, _ = read()
    assert told(episodes) == {"old": "open", "late": "over"}


def test_what_comes_later_is_read_as_it_is_committed(
    kafka: KafkaCluster, topics: Topics, read: Callable[[], tuple[AlertEpisodes, AlertLog]]
) -> None:
    episodes, _ = read()
    assert told(episodes) == {}
    firing = record("firing", "cart", now_ms())
    produce(kafka.client_options, topics.alerts, [transition(firing, now_ms())])
    until(lambda: told(episodes) == {"cart": "open"}, lambda: f"{told(episodes)}")
    produce(
        kafka.client_options, topics.alerts, [transition(record("resolved", "cart", firing.starts_at_ms), now_ms())]
    )
    until(lambda: told(episodes) == {"cart": "over"}, lambda: f"{told(episodes)}")


def test_records_of_somebody_else_are_passed_over(
    kafka: KafkaCluster, topics: Topics, read: Callable[[], tuple[AlertEpisodes, AlertLog]]
) -> None:
    foreign = [
        NewRecord(b"{", b"a", 0),
        NewRecord(b'{"schema":"alert/2"}', b"a", 0),
        NewRecord(None, b"a", 0),
        NewRecord(None, b"a", 0, (("id", b"a|b"),)),
        NewRecord(None, b"a", 0, (("id", None),)),
        NewRecord(None, b"a", 0, (("id", "a|\u00b2|b".encode()),)),
        NewRecord(b'{"schema":"\xff"}', b"a", 0),
        NewRecord(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"a", 0),
        NewRecord(b"", b"a", 1),
    ]
    for topic in (topics.alerts, topics.alerts_state):
        produce(kafka.client_options, topic, foreign)
    produce(kafka.client_options, topics.alerts_state, [state(record("firing", "cart", now_ms()), now_ms())])
    episodes, _ = read()
    assert told(episodes) == {"cart": "open"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_reader_that_has_died_knows_nothing_any_more(
    kafka: KafkaCluster, topics: Topics, read: Callable[[], tuple[AlertEpisodes, AlertLog]]
) -> None:
    episodes, log = read()

    def broken(*_: object, **__: object) -> None:
        raise AssertionError("a bug")

    episodes.take = broken  # type: ignore[method-assign]
    produce(kafka.client_options, topics.alerts, [transition(record("firing", "cart", now_ms()), now_ms())])
    until(lambda: not log.synced, lambda: "its end was not noticed")
    assert told(episodes) == {}

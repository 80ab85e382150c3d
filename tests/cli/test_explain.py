"""`tailmark explain`: which series is meant, what is said of it, and that it is what the flow decided."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
import pytest

from cli.explain_account import Account, account_of, clock
from cli.explain_read import AlertFacts, Recorded
from cli.explain_series import NothingToExplainError, choose
from cli.explain_text import lines
from evaluation.simulated_runs import PARTITIONS, START_MS, Run, run
from flows.alert_settings import policy_of
from flows.detection_settings import scoring_of
from flows.settings import Settings
from operators.kernels.episodes.suppression import Maintenance
from simulator.encode import concat
from simulator.incidents import ErrorBurst, LatencyStep, Silence
from simulator.stream import Plan, record
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import NewRecord, produce, read_topic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulator.incidents import Incident
    from simulator.world import World
    from tests.cli.conftest import Command
    from tests.conftest import KafkaCluster, Topics

MINUTE_MS = 60_000
SETTINGS = Settings()


class Story(Plan):
    """A quarter of an hour in which search is slow, accounts fails, and cart falls silent."""

    def incidents(self, world: World) -> Iterator[Incident]:
        """Give the three, one after the other."""

        def span(begin: float, end: float) -> dict[str, int]:
            return {"start_ms": START_MS + round(begin * MINUTE_MS), "end_ms": START_MS + round(end * MINUTE_MS)}

        yield LatencyStep(**span(7, 9), services=("search",))
        yield ErrorBurst(**span(8, 10), services=("accounts",), error_ratio=0.4)
        yield Silence(**span(11, 13), services=("cart",))


STORY = Story(seed=6, start_ms=START_MS, duration_ms=15 * MINUTE_MS, rate_per_s=120.0)


@pytest.fixture(scope="module")
def told() -> Run:
    """What the flow said of the story."""
    return run(STORY, SETTINGS)


@pytest.fixture(scope="module")
def recorded(told: Run) -> Recorded:
    return Recorded(told.table, [AlertFacts.of(change) for change in told.transitions])


def account(recorded: Recorded, name: str, minute: float | None) -> Account:
    at_ms = None if minute is None else START_MS + round(minute * MINUTE_MS)
    series = choose(name, recorded.windows, ())
    return account_of(recorded, series, at_ms=at_ms, scoring=scoring_of(SETTINGS), policy=policy_of(SETTINGS))


@pytest.mark.parametrize("name", ["search|/query", "search /query", "search/query"])
def test_series_is_found_by_every_way_to_write_it(recorded: Recorded, name: str) -> None:
    assert choose(name, recorded.windows, ()) == ("search", "/query")


def test_service_with_several_endpoints_is_asked_back_for_one(recorded: Recorded) -> None:
    with pytest.raises(NothingToExplainError, match=r"'search' may be any of 'search\|/query', 'search\|/suggest'"):
        choose("search", recorded.windows, ())
    alone = recorded.windows.filter(pl.col("endpoint") == "/query")
    assert choose("search", alone, ()) == ("search", "/query")


def test_names_near_to_an_unknown_one_are_suggested(recorded: Recorded) -> None:
    with pytest.raises(NothingToExplainError, match=r"no series is called 'serch/query'; near to it: 'search\|/query'"):
        choose("serch/query", recorded.windows.clear(), [b"search|/query", b"cart|/items"])
    with pytest.raises(NothingToExplainError, match="has no windows of that time"):
        choose("search", recorded.windows.clear(), [])


def test_account_of_an_open_alert_has_the_words_of_the_alert(told: Run, recorded: Recorded) -> None:
    firing = next(change for change in told.transitions if change.labels["endpoint"] == "/query")
    found = account(recorded, "search/query", (firing.window_end_ms - START_MS) / MINUTE_MS)
    assert found.exact
    assert found.explanation.state == "anomalous"
    assert found.signals[0].words == firing.annotations["description"]
    assert found.signals[0].score == pytest.approx(firing.score)
    assert f"LatencyAnomaly ({firing.labels['severity']}) is open since" in found.signals[0].opening
    text = "\n".join(lines(found))
    assert firing.annotations["summary"] in text
    assert f"no anomaly? tailmark feedback {firing.fingerprint}" in text
    assert "Latency is anomalous: outside its band" in text
    assert "came to the recorded scores" in text


def test_calm_window_says_what_it_lacks_for_an_alert(recorded: Recorded) -> None:
    found = account(recorded, "search/query", 6.5)
    text = "\n".join(lines(found))
    assert [signal.opening for signal in found.signals] == ["no alert: none of the last 3 windows is anomalous"] * 3
    assert "Latency is normal: inside its band" in text
    assert "Error ratio is improbable (record up: " in text
    assert "Anomaly score 0.99, where 1 is anomalous" in text, "what is calm is not called 1"
    assert "gate latency_min_ratio: above" in text
    assert found.open_alerts == []


def test_warming_series_says_how_far_it_is(recorded: Recorded) -> None:
    text = "\n".join(lines(account(recorded, "search/query", 2.0)))
    assert text.startswith("search /query: warming from 2026-03-02 07:01:00 UTC to 07:02:00 UTC")
    assert "Latency is warming: " in text
    assert "windows known" in text


def test_silent_service_is_told_beside_the_limit_that_it_taught(recorded: Recorded) -> None:
    found = account(recorded, "cart|/items", 12.5)
    assert found.silence.learned
    assert found.silence.quiet_ms == 90_000
    assert found.silence.quiet_ms >= found.silence.limit_ms
    assert "ServiceSilent (critical) is open since" in found.silence.opening
    assert found.signals[2].opening.startswith("no alert: the service may be falling silent")
    assert "cart has had no request for 1 min 30 s, beyond the" in "\n".join(lines(found))


def test_alert_that_was_never_written_is_told_as_held_back(told: Run) -> None:
    held = account(Recorded(told.table, []), "accounts/login", 9.5)
    assert held.signals[1].opening.startswith("by these windows the policy opens an alert, but the alerts topic has")


def test_alert_in_maintenance_says_so(told: Run) -> None:
    work = Maintenance("accounts|*", START_MS, START_MS + 15 * MINUTE_MS)
    found = account_of(
        Recorded(told.table, []),
        ("accounts", "/login"),
        at_ms=START_MS + 9 * MINUTE_MS,
        scoring=scoring_of(SETTINGS),
        policy=replace(policy_of(SETTINGS), maintenance=(work,)),
    )
    assert found.signals[1].opening == "no alert: held back, because maintenance covers this time"


def test_history_that_begins_too_late_is_admitted(recorded: Recorded) -> None:
    late = recorded.windows.filter(pl.col("window_end_ms") > START_MS + 5 * MINUTE_MS)
    found = account(replace(recorded, windows=late), "search/query", 8.0)
    assert not found.exact
    assert "came to other scores than were recorded" in "\n".join(lines(found))


@pytest.mark.parametrize(("minute", "words"), [(-60, "the oldest window of"), (600, "the newest window of")])
def test_time_without_windows_is_refused_with_the_time_that_there_is(
    recorded: Recorded, minute: float, words: str
) -> None:
    with pytest.raises(NothingToExplainError, match=words):
        account(recorded, "search/query", minute)


@pytest.fixture
def explain(tailmark: Command) -> Command:
    """A function that runs `tailmark explain`."""
    return lambda env, *arguments: tailmark(env, "explain", *arguments)


@pytest.mark.slow
def test_flow_on_kafka_is_explained_and_has_the_rows_of_the_flow_without(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path, told: Run, explain: Command
) -> None:
    log = concat([chunk.records for chunk in record(STORY, PARTITIONS)])
    records = zip(log.values, log.keys, log.partitions, log.arrival_ms, strict=True)
    produce(kafka.client_options, topics.events, [NewRecord(v, k, p, (), at) for v, k, p, at in records])
    env = settings_for(kafka, topics) | {"TAILMARK_KAFKA__STOP_AT_END": "true"}
    codes, said = FlowProcess(env, tmp_path / "recovery").run()
    assert codes == [0], said
    rows = {
        (r["service"], r["endpoint"], r["window_end_ms"]): r for r in map(_value, read_topic(*_windows(kafka, topics)))
    }
    for row in told.table.to_dicts():
        assert rows[row["service"], row["endpoint"], row["window_end_ms"]] == row
    written = [_value(read) for read in read_topic(kafka.client_options, topics.alerts)]
    ours = [(change.status, change.labels, change.window_end_ms, change.annotations) for change in told.transitions]
    wrote = [(one["status"], one["labels"], one["window_end_ms"], one["annotations"]) for one in written]
    assert sorted(map(repr, wrote)) == sorted(map(repr, ours))

    firing = next(change for change in told.transitions if change.labels["endpoint"] == "/query")
    at = ("--at", str(firing.window_end_ms))
    page = tmp_path / "query.html"
    code, out, err = explain(env, "search/query", *at, "--plot", str(page))
    assert (code, err) == (0, "")
    assert firing.annotations["description"] in out
    assert "came to the recorded scores" in out
    assert "search /query" in page.read_text()
    code, out, _ = explain(env, "search|/query", *at, "--output", "json")
    data = json.loads(out)
    assert data["explanation"]["signals"][0]["verdict"].startswith("latency is anomalous")
    assert data["exact"] is True
    code, out, err = explain(env, "serch/query", *at)
    assert (code, out) == (1, "")
    assert "near to it: 'search|/query'" in err
    code, _, err = explain(env, "search/query", "--at", "2026-03-01")
    assert code == 1
    assert clock(START_MS + 10_000) in err


def _windows(kafka: KafkaCluster, topics: Topics) -> tuple[dict[str, str], str]:
    return kafka.client_options, topics.windows


def _value(read: object) -> dict[str, object]:
    return json.loads(read.value)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a", "--at", "yesterday"), "`--at` must be ISO 8601"),
        (("a", "--history", "0h"), "`--history` must be a number with m, h or d"),
        (("a", "--plot", "a.gif"), "`--plot` must end with one of .html, .svg, .png"),
    ],
)
def test_impossible_option_is_refused_before_kafka_is_asked(
    explain: Command, arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = explain({"TAILMARK_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_topic_that_does_not_exist_and_kafka_that_is_away_are_said_in_one_line(
    kafka: KafkaCluster, topics: Topics, explain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sources.clients.ANSWER_TIMEOUT_S", 1.0)
    code, _, err = explain(settings_for(kafka, topics), "search")
    assert code == 1
    assert f"topic {topics.windows} does not exist" in err
    code, _, err = explain({"TAILMARK_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "search")
    assert code == 1
    assert err.startswith("tailmark: kafka at 127.0.0.1:1 did not answer within 1 s")
    assert err.count("\n") == 1

"""The rules of retrying: who is at fault decides what happens to a request."""

from __future__ import annotations

import json
from email.utils import formatdate
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from sinks.remote_write_delivery import (
    FEW_PROBES,
    MANY_PROBES,
    PATIENCE,
    AbandonedError,
    Delivery,
    DeliveryRules,
    RemoteWriteError,
)
from sinks.remote_write_receiver import Receiver
from sinks.remote_write_requests import batches
from tests.dirty_log import START_MS
from tests.kernels.tally_world import TallyWorld
from tests.sinks.scripted_receiver import V2, ScriptedReceiver, Seen, Told, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from operators.kernels.tally_frame import TallyFrame

NOW_S = START_MS / 1000 + 3600
MOST_RESTS = 200


class World:
    """A delivery to a scripted receiver, without real pauses."""

    def __init__(self, answer: Callable[[Seen], Told], headers: dict[str, str] | None = None, **rules: Any) -> None:
        self.receiver = ScriptedReceiver(answer)
        self.rests: list[float] = []
        client = Receiver(self.receiver.url, timeout_s=5, headers=headers or {}, clock=lambda: NOW_S)
        self.delivery = Delivery(client, DeliveryRules(**rules), rest=self.rest, clock=lambda: NOW_S)

    def rest(self, seconds: float) -> bool:
        self.rests.append(seconds)
        return len(self.rests) >= MOST_RESTS

    @property
    def counts(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.delivery.counts.samples.items() if count}


@pytest.fixture
def worlds() -> Iterator[Callable[..., World]]:
    """A function that makes a world; all are closed at the end."""
    made: list[World] = []

    def make(answer: Callable[[Seen], Told], **rules: Any) -> World:
        made.append(World(answer, **rules))
        return made[-1]

    yield make
    for world in made:
        world.receiver.close()


@pytest.fixture(scope="module")
def frame() -> TallyFrame:
    """A pane with 40 series."""
    world = TallyWorld(1)
    fields = [{"timestamp_ms": START_MS, "service": "s", "endpoint": f"/{n}", "latency_ms": n} for n in range(40)]
    world.feed(0, [json.dumps(one).encode() for one in fields])
    world.end()
    return next(found for found in world.frames if found.service)


def everything(frame: TallyFrame, *, native: bool = True) -> int:
    return sum(len(batch.entries) for batch in batches([frame], "1.0", max_samples=1000, native=native))


def good(seen: Seen) -> Told:
    return Told(200, headers=written(seen)) if seen.version == "2.0" else Told(204)


def is_bad(seen: Seen) -> bool:
    """Whether there is the one series that a receiver does not like."""
    return any(dict(one.labels).get("endpoint") == "/7" and ("code", "200") in one.labels for one in seen.series)


def test_headers_are_those_of_the_specification_and_nobody_overrides_them(
    worlds: Callable[..., World], frame: TallyFrame
) -> None:
    for told, kind, number in (("1.0", "application/x-protobuf", "0.1.0"), ("2.0", V2, "2.0.0")):
        headers = {"x-scope-orgid": "team", "content-type": "text/plain", "User-Agent": "me"}
        world = worlds(good, version=told, headers=headers)
        world.delivery.deliver([frame])
        for seen in world.receiver.seen:
            assert seen.headers["content-encoding"] == "snappy"
            assert seen.headers["content-type"] == kind
            assert seen.headers["x-prometheus-remote-write-version"] == number
            assert seen.headers["user-agent"] == f"tailmark/{version('tailmark')}"
            assert seen.headers["x-scope-orgid"] == "team"
            assert seen.path == "/api/v1/write"
        assert world.counts == {"written": everything(frame)}


def test_user_part_of_the_address_is_sent_as_basic_authentication(frame: TallyFrame) -> None:
    receiver = ScriptedReceiver(good)
    try:
        url = receiver.url.replace("//", "//me:p%40ss@")
        client = Receiver(url, timeout_s=5, headers={"authorization": "Bearer x"}, clock=lambda: NOW_S)
        batch = next(iter(batches([frame], "1.0", max_samples=1000, native=False)))
        assert client.post(batch).status == 204
        assert receiver.seen[0].headers["authorization"] == "Basic bWU6cEBzcw=="
        assert "me" not in client.name
    finally:
        receiver.close()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_request_is_sent_again_until_it_is_taken_and_nothing_overtakes_it(
    worlds: Callable[..., World], frame: TallyFrame, status: int
) -> None:
    failures = iter([Told(status, "not now")] * (PATIENCE - 1))
    world = worlds(lambda seen: next(failures, None) or good(seen), max_samples=200)
    world.delivery.deliver([frame])
    first = [one.key for one in world.receiver.seen[0].series]
    assert all([one.key for one in seen.series] == first for seen in world.receiver.seen[:PATIENCE])
    assert world.rests == [0.03 * 2**number for number in range(PATIENCE - 1)]
    assert world.counts == {"written": everything(frame)}
    assert world.delivery.counts.retries == PATIENCE - 1


def test_pauses_grow_no_longer_than_they_may_and_tries_never_end(
    worlds: Callable[..., World], frame: TallyFrame
) -> None:
    world = worlds(lambda _: Told(503), longest_pause_s=1.0)
    with pytest.raises(AbandonedError):
        world.delivery.deliver([frame])
    assert len(world.rests) == MOST_RESTS
    assert max(world.rests) == 1.0
    assert world.counts == {}


def test_receiver_that_does_not_answer_is_asked_again(frame: TallyFrame) -> None:
    world = World(good)
    world.receiver.close()
    with pytest.raises(AbandonedError):
        world.delivery.deliver([frame])
    assert world.counts == {}


@pytest.mark.parametrize(("said", "seconds"), [("7", 7.0), (formatdate(NOW_S + 90, usegmt=True), 90.0)])
def test_receiver_that_says_when_is_asked_then(
    worlds: Callable[..., World], frame: TallyFrame, said: str, seconds: float
) -> None:
    answers = iter([Told(429, headers={"Retry-After": said})])
    world = worlds(lambda seen: next(answers, None) or good(seen))
    world.delivery.deliver([frame])
    assert world.rests == [pytest.approx(seconds, abs=1)]


@pytest.mark.parametrize("told", ["1.0", "2.0"])
@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("out of order sample", "out_of_order"),
        ("too old sample", "too_old"),
        ("duplicate sample for timestamp", "duplicate"),
        ("label value too long", "refused"),
    ],
)
def test_bad_sample_is_isolated_and_counted_and_the_rest_lands_without_a_pause(
    worlds: Callable[..., World], frame: TallyFrame, told: str, text: str, outcome: str
) -> None:
    world = worlds(lambda seen: Told(400, text) if is_bad(seen) else good(seen), version=told)
    world.delivery.deliver([frame])
    # It is refused with its zero, and with its value.
    assert world.counts == {"written": everything(frame) - 2, outcome: 2}
    assert len(set(map(repr, world.receiver.taken))) == everything(frame) - 2
    assert world.rests == []


def test_request_that_is_out_of_bounds_is_not_parted(worlds: Callable[..., World], frame: TallyFrame) -> None:
    world = worlds(lambda _: Told(400, "out of bounds"), version="1.0", max_samples=10**6)
    world.delivery.deliver([frame])
    assert world.counts == {"too_old": everything(frame)}
    assert len(world.receiver.seen) == 4


def test_hours_that_are_sent_again_in_vain_take_few_requests(worlds: Callable[..., World], frame: TallyFrame) -> None:
    world = worlds(lambda _: Told(400, "out of order sample"), version="1.0", max_samples=10**6)
    world.delivery.deliver([frame])
    assert world.counts == {"out_of_order": everything(frame)}
    floats = [seen for seen in world.receiver.seen if seen.series[0].samples]
    assert len(floats) == 1 + MANY_PROBES + 1 + FEW_PROBES
    again = len(world.receiver.seen)
    world.delivery.deliver([frame])
    assert len([seen for seen in world.receiver.seen[again:] if seen.series[0].samples]) == 2 + 2 * FEW_PROBES


def test_one_good_sample_in_ten_lands(worlds: Callable[..., World], frame: TallyFrame) -> None:
    def is_good(seen: Seen) -> bool:
        return all(dict(one.labels)["endpoint"] in {"/3", "/13", "/23", "/33"} for one in seen.series)

    world = worlds(lambda seen: good(seen) if is_good(seen) else Told(400, "out of order sample"), version="1.0")
    world.delivery.deliver([frame])
    assert world.counts == {"written": everything(frame) // 10, "out_of_order": everything(frame) * 9 // 10}


def test_receiver_that_says_what_it_wrote_of_a_bad_request_is_believed(
    worlds: Callable[..., World], frame: TallyFrame
) -> None:
    def answer(seen: Seen) -> Told:
        if not is_bad(seen):
            return good(seen)
        return Told(400, "out of order", {"X-Prometheus-Remote-Write-Samples-Written": str(len(seen.series) - 1)})

    world = worlds(answer)
    world.delivery.deliver([frame])
    assert world.counts == {"written": everything(frame) - 2, "out_of_order": 2}
    keys = [
        (one.key, [sample[0] for sample in one.samples], [said["at_ms"] for said in one.histograms])
        for seen in world.receiver.seen
        for one in seen.series
    ]
    assert len(set(map(repr, keys))) == len(keys)


def test_request_that_is_too_large_is_parted(worlds: Callable[..., World], frame: TallyFrame) -> None:
    world = worlds(lambda seen: Told(413, "too large") if len(seen.series) > 10 else good(seen))
    world.delivery.deliver([frame])
    assert world.counts == {"written": everything(frame)}


@pytest.mark.parametrize("refuses", [Told(415, "unsupported"), Told(204)], ids=["415", "nothing written"])
def test_receiver_that_does_not_know_the_newer_version_gets_the_older_one(
    worlds: Callable[..., World], frame: TallyFrame, refuses: Told
) -> None:
    world = worlds(lambda seen: refuses if seen.version == "2.0" else good(seen))
    world.delivery.deliver([frame])
    world.delivery.deliver([frame])
    assert [seen.version for seen in world.receiver.seen].count("2.0") == 1
    assert world.counts == {"written": 2 * everything(frame)}


def test_version_that_was_asked_for_is_not_changed(worlds: Callable[..., World], frame: TallyFrame) -> None:
    with pytest.raises(RemoteWriteError, match=r"REMOTE_WRITE_VERSION=1\.0"):
        worlds(lambda _: Told(204), version="2.0").delivery.deliver([frame])


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
def test_receiver_that_would_never_take_anything_stops_the_flow(
    worlds: Callable[..., World], frame: TallyFrame, status: int
) -> None:
    world = worlds(lambda _: Told(status, "no"))
    with pytest.raises(RemoteWriteError, match=f"refused with {status}"):
        world.delivery.deliver([frame])
    assert len(world.receiver.seen) == 1
    assert world.counts == {}


def test_sample_that_alone_makes_the_receiver_fail_is_isolated(worlds: Callable[..., World], frame: TallyFrame) -> None:
    world = worlds(lambda seen: Told(500, "bug") if is_bad(seen) else good(seen))
    world.delivery.deliver([frame])
    assert world.counts == {"written": everything(frame) - 2, "server_error": 2}


def test_receiver_that_fails_for_everything_is_not_taken_for_bad_samples(
    worlds: Callable[..., World], frame: TallyFrame
) -> None:
    world = worlds(lambda _: Told(500, "bug"))
    with pytest.raises(AbandonedError):
        world.delivery.deliver([frame])
    assert world.counts == {}


def test_receiver_without_native_histograms_is_given_no_more_of_them(
    worlds: Callable[..., World], frame: TallyFrame
) -> None:
    def answer(seen: Seen) -> Told:
        return Told(500, "native histograms are disabled") if seen.series[0].histograms else good(seen)

    world = worlds(answer)
    world.delivery.deliver([frame])
    world.delivery.deliver([frame])
    assert sum(bool(seen.series[0].histograms) for seen in world.receiver.seen) == 1
    assert world.counts["written"] == 2 * everything(frame, native=False)
    assert world.counts["native_unsupported"] > 0


def test_samples_beyond_the_horizon_are_counted_and_not_sent(worlds: Callable[..., World], frame: TallyFrame) -> None:
    world = worlds(good, max_age_s=3500.0)
    world.delivery.deliver([frame])
    assert world.receiver.seen == []
    assert world.counts == {"too_old": 40 * 21}
    younger = worlds(good, max_age_s=3700.0)
    younger.delivery.deliver([frame])
    assert younger.counts == {"written": everything(frame)}

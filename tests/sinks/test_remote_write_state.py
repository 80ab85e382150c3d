"""What remote write keeps: frames come back as they were, and marks only count for the receiver they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from operators.kernels.codec import StateError
from sinks.remote_write_state import DeliveredMarks, waiting_from_bytes, waiting_to_bytes
from tests.dirty_log import dirty_log
from tests.kernels.tally_world import TallyWorld, samples_of

if TYPE_CHECKING:
    from pathlib import Path


def test_waiting_frames_come_back_as_they_were() -> None:
    frames = TallyWorld(2).run(dirty_log(3, partitions=2, records=300, span_ms=100_000)).frames
    waiting = [(f"shard-{number:02d}", frame) for number, frame in enumerate(frames)]
    back = waiting_from_bytes(waiting_to_bytes(waiting))
    assert [shard for shard, _ in back] == [shard for shard, _ in waiting]
    for (_, found), (_, frame) in zip(back, waiting, strict=True):
        assert samples_of(found) == samples_of(frame)
        assert (found.pane_start_ms, found.exemplars, found.ended) == (
            frame.pane_start_ms,
            frame.exemplars,
            frame.ended,
        )
        assert np.array_equal(found.code_started_ms, frame.code_started_ms)


def test_state_of_something_else_is_refused() -> None:
    with pytest.raises(StateError):
        waiting_from_bytes(b"nothing of ours")


def test_marks_outlive_the_process_and_are_those_of_one_receiver(tmp_path: Path) -> None:
    early, late = TallyWorld(2).run(dirty_log(3, partitions=2, records=300, span_ms=100_000)).frames[::8][:2]
    DeliveredMarks(tmp_path / "x", 1, "http://a").add([("shard-01", early)])
    again = DeliveredMarks(tmp_path / "x", 1, "http://a")
    assert again.has("shard-01", early)
    assert not again.has("shard-01", late)
    assert not again.has("shard-02", early)
    assert not DeliveredMarks(tmp_path / "x", 1, "http://b").has("shard-01", early)
    assert not DeliveredMarks(tmp_path / "x", 2, "http://a").has("shard-01", early)


def test_damaged_marks_are_no_marks(tmp_path: Path) -> None:
    frame = TallyWorld(2).run(dirty_log(3, partitions=2, records=300, span_ms=100_000)).frames[0]
    (tmp_path / "sender-01.json").write_text("{")
    assert not DeliveredMarks(tmp_path, 1, "http://a").has("shard-01", frame)

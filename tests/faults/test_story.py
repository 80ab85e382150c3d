"""The story that fault tests tell is worth telling: each part of the flow has something to lose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.story import Outcome


def test_story_has_windows_dead_letters_and_episodes_that_open_and_close(expected: Outcome) -> None:
    assert expected.count("windows") > 500
    assert expected.count("dead_letter") > 100
    statuses = expected.statuses()
    assert statuses["firing"] > statuses["resolved"] >= 3, "some are still open when the story ends"
    assert expected.count("alerts_state") == expected.count("alerts")

"""One incident a service: which of its alerts belong together, and which of them moved first.

The alerts stay episodes of their own, with their own labels. What they have in common is said in annotations:
`incident` names the alert that began it, `members` lists what is open, ranked. First comes what was anomalous first; of
what was so in the same window, the highest score: a callee multiplies its own latency, while those who call it add the
same milliseconds to more.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from operators.kernels.episodes.track import Track
    from operators.kernels.frames import Transition


def join(changes: Sequence[Transition], tracks: Iterable[Track]) -> list[Transition]:
    """Say in what fires now to which incident it belongs, and who else does.

    Args:
        changes: What this window end has brought.
        tracks: All alerts of the shard; those that are open know their incident afterwards.

    Returns:
        The changes in their order. An alert that is alone in its incident is left as it is.
    """
    opened = {id(change) for change in changes if change.status == "firing"}
    if not opened:
        return list(changes)
    services = {change.labels["service"] for change in changes if change.status == "firing"}
    told: dict[int, Transition] = {}
    members: dict[str, list[Track]] = {}
    for track in tracks:
        if track.firing is not None and track.service in services:
            members.setdefault(track.service, []).append(track)
    for tracks_of_service in members.values():
        ranked = sorted(tracks_of_service, key=_rank)
        incident = next((track.incident for track in ranked if track.incident), "") or _name_of(ranked[0])
        for track in ranked:
            track.incident = incident
            firing = track.firing
            if firing is not None and id(firing) in opened and len(ranked) > 1:
                track.firing = told[id(firing)] = replace(
                    firing, annotations={**firing.annotations, "incident": incident, "members": _listed(ranked)}
                )
    return [told.get(id(change), change) for change in changes]


def _rank(track: Track) -> tuple[int, float, str, str]:
    firing = track.firing
    assert firing is not None, "only what is open has a rank"
    return firing.starts_at_ms, -firing.score, track.endpoint, firing.labels["alertname"]


def _name_of(track: Track) -> str:
    firing = track.firing
    assert firing is not None, "only what is open can begin an incident"
    return f"{firing.fingerprint}-{firing.starts_at_ms}"


def _listed(ranked: Sequence[Track]) -> str:
    lines = []
    for place, track in enumerate(ranked, 1):
        firing = track.firing
        assert firing is not None, "only what is open is listed"
        since = datetime.fromtimestamp(firing.starts_at_ms / 1_000, UTC).strftime("%H:%M:%S")
        where = track.endpoint or "the whole service"
        lines.append(f"{place}. {firing.labels['alertname']} of {where} since {since} UTC")
    return "; ".join(lines)

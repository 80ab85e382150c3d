"""What remote write keeps: frames that wait, in a snapshot, and how far each shard was delivered, in a file."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any, Final

from operators.kernels.codec import pack, unpack
from operators.kernels.tally_frame import Ended, Exemplar, TallyFrame

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_KIND: Final = "remote-write"
_FRAME_KIND: Final = "tally-frame"
_VERSION: Final = 1
_COLUMNS: Final = tuple(one.name for one in fields(TallyFrame) if "NDArray" in str(one.type))
_PLAIN: Final = ("pane_start_ms", "pane_end_ms", "service", "endpoint")


def waiting_to_bytes(waiting: Iterable[tuple[str, TallyFrame]]) -> bytes:
    """Encode frames that are not delivered yet, with their shards."""
    return pack(_KIND, _VERSION, {"frames": [(shard, _to_bytes(frame)) for shard, frame in waiting]}, {})


def waiting_from_bytes(data: bytes) -> list[tuple[str, TallyFrame]]:
    """Decode what `waiting_to_bytes` gave.

    Raises:
        StateError: The bytes are damaged or of a layout that this release does not read.
    """
    _, values, _ = unpack(_KIND, (_VERSION,), data)
    return [(shard, _from_bytes(frame)) for shard, frame in values["frames"]]


def _to_bytes(frame: TallyFrame) -> bytes:
    values: dict[str, Any] = {name: getattr(frame, name) for name in _PLAIN}
    values["exemplars"] = [astuple(one) for one in frame.exemplars]
    values["ended"] = [astuple(one) for one in frame.ended]
    return pack(_FRAME_KIND, _VERSION, values, {name: getattr(frame, name) for name in _COLUMNS})


def _from_bytes(data: bytes) -> TallyFrame:
    _, values, arrays = unpack(_FRAME_KIND, (_VERSION,), data)
    fields_of: dict[str, Any] = {**{name: values[name] for name in _PLAIN}, **{name: arrays[name] for name in _COLUMNS}}
    return TallyFrame(
        **fields_of,
        exemplars=tuple(Exemplar(*one) for one in values["exemplars"]),
        ended=tuple(Ended(service, endpoint, tuple(statuses)) for service, endpoint, statuses in values["ended"]),
    )


class DeliveredMarks:
    """The last pane of each shard that a receiver has, written down as soon as it has it.

    A crash goes back to the last snapshot, and what was delivered since would be delivered again: in order, but behind
    what the receiver has by then, which it takes only for native histograms of the newest releases and where it allows
    for samples out of order. With the marks it is left out. Without them, as after a loss of the directory, all of it
    is sent again, and is the same.
    """

    def __init__(self, directory: Path | None, number: int, url: str) -> None:
        """Read what an earlier process wrote down.

        Args:
            directory: Where the file is; None for a flow that keeps nothing.
            number: Of the sender, one file for each.
            url: The receiver: what another one has tells nothing.
        """
        self._path = None if directory is None else directory / f"sender-{number:02d}.json"
        self._receiver = f"{zlib.crc32(url.encode()):08x}"
        self._ends: dict[str, int] = {}
        if self._path is None:
            return
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            facts = json.loads(self._path.read_text(encoding="utf-8"))
            if facts["receiver"] == self._receiver:
                self._ends = {str(shard): int(end) for shard, end in facts["delivered_ms"].items()}

    def has(self, shard: str, frame: TallyFrame) -> bool:
        """Tell whether the receiver has a frame."""
        return frame.pane_end_ms <= self._ends.get(shard, -1)

    def add(self, frames: Iterable[tuple[str, TallyFrame]]) -> None:
        """Write down that the receiver has frames."""
        self._ends.update({shard: frame.pane_end_ms for shard, frame in frames})
        if self._path is None:
            return
        self._path.parent.mkdir(exist_ok=True)
        draft = self._path.with_suffix(".new")
        # Not synced: after a loss of power some samples are sent again, and are the same.
        draft.write_text(json.dumps({"receiver": self._receiver, "delivered_ms": self._ends}), encoding="utf-8")
        draft.replace(self._path)

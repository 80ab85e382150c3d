"""What the archive asks the source for: every valid event as a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from confluent_kafka import Message

from operators.kernels.archive_rows import archive_rows
from sources.record import timestamps_ms_of, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import polars as pl

    from operators.kernels.archive_rows import CopiedKeys
    from operators.kernels.intake import Intake
    from sources.kafka import Detail
    from sources.record import Record

_OFFSET: Final = cast("Callable[[Record], int]", Message.offset)


def archived(copied: CopiedKeys) -> Detail:
    """Make what takes rows out of the records of one read.

    Args:
        copied: Keys of an event that are in a column already.

    Returns:
        The detail of a source whose events are `ArchivedEvent`; it gives the rows, or None without any.
    """

    def rows(records: Sequence[Record], intake: Intake) -> pl.DataFrame | None:
        of_one = list(records)
        offsets = list(map(_OFFSET, of_one))
        partition = of_one[0].partition()
        return archive_rows(values_of(of_one), offsets, timestamps_ms_of(of_one), partition, intake, copied=copied)

    return rows

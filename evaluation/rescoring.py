"""Recorded windows under other settings: what the flow would have said, had it been told otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from evaluation.simulated_report import figures
from evaluation.simulated_runs import alerts_of
from evaluation.window_table import frames_of, table_of
from flows.alert_settings import policy_of
from flows.detection_settings import scoring_of
from operators.kernels.episodes import Episodes
from operators.kernels.scoring import Scorer
from operators.kernels.series import shard_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.simulated_runs import Run
    from flows.settings import Settings
    from operators.kernels.frames import ScoredFrame, Transition


_COMPARED: Final = {
    "settings": pl.String,
    "alerts": pl.Int64,
    "recall": pl.Float64,
    "precision": pl.Float64,
    "slides": pl.Float64,
}


@dataclass(frozen=True, slots=True)
class Rescored:
    """Windows and alerts under some settings.

    Attributes:
        table: The windows with their new scores and bands, as `window_table` has them.
        transitions: The alerts that they would have given.
    """

    table: pl.DataFrame
    transitions: tuple[Transition, ...]


def compare(run: Run, variants: Mapping[str, Settings]) -> pl.DataFrame:
    """Try settings on a recording whose incidents are known.

    Args:
        run: The recording.
        variants: Settings by what to call them.

    Returns:
        A row for each, with `settings`, `alerts`, `recall`, `precision`, and `slides`: the median from the beginning of
        an incident to its alert.
    """
    rows = []
    for name, settings in variants.items():
        alerts = alerts_of(rescore(run.table, settings).transitions)
        worth = figures(name, [("recording", run)], [alerts])
        rows.append((name, worth.alerts, worth.recall, worth.precision, worth.slides))
    return pl.DataFrame(rows, schema=_COMPARED, orient="row")


def rescore(table: pl.DataFrame, settings: Settings) -> Rescored:
    """Let the detectors and the policy of the flow judge recorded windows again, from the first of them on.

    Args:
        table: Windows of any series, such as those of `telemetry.windows`; each once, cut-short ones left out.
        settings: Settings to try. Their windows must be as long, and as far apart, as the recorded ones.

    Raises:
        ValueError: The windows are of another length.
    """
    span, policy = settings.window, policy_of(settings)
    lengths = (table["window_end_ms"] - table["window_start_ms"]).unique().to_list()
    if lengths != [span.length_ms]:
        raise ValueError(
            f"`window.length_ms` must be that of the recorded windows, or they can't be judged again; got"
            f" {span.length_ms}, the windows have {lengths}"
        )
    frames: list[ScoredFrame] = []
    transitions: list[Transition] = []
    for part in _shards(table, span.shards):
        scorer, episodes = Scorer(scoring_of(settings), span.slide_ms, span.length_ms), Episodes(policy)
        for recorded in frames_of(part):
            frames.append(scorer.step(recorded.windows))
            transitions += episodes.step(frames[-1])
    transitions.sort(key=lambda change: change.window_end_ms)
    return Rescored(table_of(frames).sort("window_end_ms", "service", "endpoint"), tuple(transitions))


def _shards(table: pl.DataFrame, shards: int) -> list[pl.DataFrame]:
    """Split windows as the flow does: some of the policy counts all series of a shard."""
    home = {service: shard_of(service, shards) for service in table["service"].unique().to_list()}
    placed = table.with_columns(pl.col("service").replace_strict(home, return_dtype=pl.Int64).alias("_shard"))
    return placed.partition_by("_shard", include_key=False)

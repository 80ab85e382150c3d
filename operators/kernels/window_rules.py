"""The settings of the windows, which the census and the tallies follow too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowRules:
    """The settings of the windows.

    Attributes:
        length_ms: Length of a window, a multiple of `slide_ms`.
        slide_ms: Distance of two window ends, and length of a pane.
        series_ttl_ms: How long a series that is silent keeps its windows.
        max_series: Most series in all shards; later ones fold into `__overflow__` of their service.
    """

    length_ms: int
    slide_ms: int
    series_ttl_ms: int
    max_series: int

    @property
    def panes_in_window(self) -> int:
        """How many panes a window spans."""
        return self.length_ms // self.slide_ms

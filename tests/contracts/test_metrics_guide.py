"""The guide has a row for every metric that a page shows, and for no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
NAME: Final = r"(?:tailmark|telemetry)_[a-z_]+"


def test_every_metric_of_the_pages_is_in_the_guide_and_no_other() -> None:
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "sinks").glob("*.py")))
    guide = (ROOT / "docs" / "guide" / "metrics.md").read_text()
    cells = [line.split("|")[1] for line in guide.splitlines() if line.startswith("| `t")]
    told = [name.removesuffix("_total") for cell in cells for name in re.findall(rf"`({NAME})`", cell)]
    assert sorted(told) == sorted(set(re.findall(rf'"({NAME})"', sources)))

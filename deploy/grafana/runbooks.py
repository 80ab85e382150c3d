"""The runbooks of `docs/runbooks` as dashboards, so that the link of an alert leads to a page that is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import page

if TYPE_CHECKING:
    from collections.abc import Iterator

_RELATIVE_LINK: Final = re.compile(r"\[([^]]+)\]\(\.\.?/[^)]*\)")

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "runbooks"


def build() -> Iterator[dashboard.Dashboard]:
    """Build one dashboard for each runbook; its address ends with the name of the alert."""
    for path in sorted(FOLDER.glob("*.md")):
        markdown = _RELATIVE_LINK.sub(r"\1", path.read_text(encoding="utf-8").partition("\n")[2].strip())
        yield (
            dashboard.Dashboard(path.stem)
            .uid(f"runbook-{path.stem}")
            .tags(["tailmark", "runbook"])
            .with_panel(page(markdown))
        )

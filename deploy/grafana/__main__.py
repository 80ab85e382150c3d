"""Writes the dashboards: `python -m deploy.grafana`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import alerts, pipeline, runbooks, service

FOLDER: Final = Path(__file__).resolve().parent / "dashboards"


def documents() -> dict[str, str]:
    """Build all dashboards.

    Returns:
        What is in each file, by its name below `dashboards`.
    """
    boards = {f"{module.UID}.json": module.build().build() for module in (service, pipeline, alerts)}
    boards |= {f"runbooks/{board.title}.json": board for board in (one.build() for one in runbooks.build())}
    for board in boards.values():
        for number, panel in enumerate(board.panels or [], 1):
            panel.id_val = number  # or Grafana would choose, and links to a panel would not last
    return {name: JSONEncoder(sort_keys=True, indent=2).encode(board) + "\n" for name, board in boards.items()}


def main() -> None:
    """Write all files, and take away those that nothing makes any more."""
    made = documents()
    for name, text in made.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in FOLDER.rglob("*.json"):
        if path.relative_to(FOLDER).as_posix() not in made:
            path.unlink()


if __name__ == "__main__":
    main()

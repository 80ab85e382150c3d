"""A file system of a test's own, that can be filled up."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024
PAGE_BYTES = 4096


class SmallDisk:
    """A file system of its own that can be filled up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Take all room, though somebody else may be writing."""
        with self._ballast.open("ab") as ballast:
            size = shutil.disk_usage(self.path).free
            while size >= PAGE_BYTES:
                try:
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, size)
                except OSError:
                    size //= 2

    def clear(self) -> None:
        """Give the room back."""
        self._ballast.unlink()

"""Folders of a project's data: the user who makes one is the only one who may look into it, and sees when it is another one."""

from __future__ import annotations

import os
from pathlib import Path

OWNERS = 0o700


def own_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, each for its owner alone; one that is there keeps its rights.
    Raises OSError, FileExistsError where something else has the name."""
    try:
        path.mkdir(mode=OWNERS, exist_ok=True)
    except FileNotFoundError:
        own_folder(path.parent)
        path.mkdir(mode=OWNERS, exist_ok=True)


class SameFolder:
    """A folder as it is now, told apart from any other that may get its name. Raises OSError where there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # It stays open, so that no other folder can get the same number.
        self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def is_there(self) -> bool:
        """Whether its name is still its own."""
        if self._descriptor is None:  # who closed it asks no more
            return True
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return False

    def close(self) -> None:
        """Give the descriptor up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

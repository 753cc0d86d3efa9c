"""Folders of a project's data: whoever makes one is the only one who may look into it."""

from __future__ import annotations

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

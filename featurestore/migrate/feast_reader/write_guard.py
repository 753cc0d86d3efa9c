"""What is not to happen while definitions are read: files that are written, and stores that are worked with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def project_folder(root: Path) -> Path:
    """The folder of the project that a repository is a part of, whose modules it may import."""
    for folder in (root, *root.parents):
        if any((folder / name).exists() for name in (".git", "pyproject.toml", "setup.py", "setup.cfg")):
            return folder
    return root


def refuse_writes(root: Path) -> None:
    """From now on no file below a folder is written, made, renamed or removed by Python code. A folder that is to be made is
    passed over, as if it was there: many files of definitions make one for data."""
    real = os.path.realpath(root) + os.sep
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    changes = {
        "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree",
        "shutil.move", "shutil.copyfile", "sqlite3.connect",
    }  # fmt: skip

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            if isinstance(args[2], int) and args[2] & writes:
                refuse(args[0])
        elif event in changes:
            for path in args:
                refuse(path)

    def below(path: Any) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        return (os.path.realpath(os.fsdecode(path)) + os.sep).startswith(real)

    def refuse(path: Any) -> None:
        if below(path):
            there = os.path.realpath(os.fsdecode(path))
            raise PermissionError(f"{there} would be written while definitions are read, which changes nothing")

    make_folder = os.mkdir

    def make_elsewhere(path: Any, *args: Any, **more: Any) -> None:
        if not below(path):
            make_folder(path, *args, **more)

    os.mkdir = make_elsewhere
    sys.addaudithook(watch)


class UsedError(Exception):
    """What only declares has opened a store and worked with it, or used what is not installed."""


class NoStore:
    """Stands for Feast's store while files are loaded: it notes what they apply, and does nothing else."""

    applied: list[Any] = []

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def apply(self, objects: Any, *_: Any, **__: Any) -> None:
        """Note what is declared."""
        NoStore.applied += objects if isinstance(objects, (list, tuple)) else [objects]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UsedError(f"it opens a store and calls {name}, as a script does")

"""Temporary folders that vanish with their owner: where that was killed, with the next process that needs one.

A folder is its owner's while a lock on a file in it is held, which the system lets go of when the process ends, however it
ends. The process that gets that lock removes the folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

from featurestore.durable.forks import closed_in_child, mutex
from featurestore.durable.lock import close, taken
from featurestore.durable.own_folder import own_folder

PREFIX = "featurestore-of-"
OWNER = ".owner"

_swept: set[Path] = set()
_sweeping = mutex()


class TemporaryFolder:
    """A new folder of this process's own in `place`, by default where the system keeps such; gone with `remove`, with the
    object and with the process. The first in a place clears what killed processes left there. Raises OSError."""

    def __init__(self, place: Path | None = None) -> None:
        within = Path(tempfile.gettempdir()) if place is None else place
        own_folder(within)
        with _sweeping:
            if within not in _swept:
                _swept.add(within)
                _sweep(within)
        self.path, lock = _made(within)
        self._remove = weakref.finalize(self, _removed, self.path, lock, os.getpid())

    def remove(self) -> None:
        """Delete the folder and all in it; idempotent."""
        self._remove()


def _made(within: Path) -> tuple[Path, int]:
    """A new folder, and the lock that makes it this process's."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=within))
        try:
            lock = os.open(path / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # another process took it for one that was left
            continue
        if taken(lock) and (path / OWNER).exists():
            return path, closed_in_child(lock)
        os.close(lock)


def _removed(path: Path, lock: int, owner: int) -> None:
    if os.getpid() == owner:  # in a child, which has the parent's objects, the number may be that of a file of its own
        shutil.rmtree(path, ignore_errors=True)
        close(lock)


def _sweep(within: Path) -> None:
    """Remove the folders of this user whose owners are dead."""
    with suppress(OSError), os.scandir(within) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_left(Path(entry.path))


def _remove_left(path: Path) -> None:
    if path.stat().st_uid != os.geteuid():
        return
    try:
        lock = os.open(path / OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # killed before it was locked, or just now made, by who then makes another
        path.rmdir()
        return
    try:
        if taken(lock):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)

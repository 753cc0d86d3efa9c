"""What an error of the file system means to the one who has to do something about it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["is_full", "is_read_only", "told", "unwritable"]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}


def is_full(error: OSError) -> bool:
    """Whether there is no room: on the disk, in a quota, or below a limit of files' sizes."""
    return error.errno in FULL


def is_read_only(error: OSError) -> bool:
    """Whether nothing may be written there."""
    return error.errno in CLOSED


def told(error: OSError, path: Path | None = None) -> str:
    """The error in words, with the path that it names, or this one where it names none."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None] or (
        [] if path is None else [str(path)]
    )
    where = f" ({' → '.join(names)})" if names else ""
    if error.errno == errno.EFBIG:
        return f"disk full: the process's limit of a file's size is reached{where}"
    if is_full(error):
        return f"disk full{where}"
    if error.errno == errno.EROFS:
        return f"read-only file system{where}"
    return f"{error.strerror or error}{where}"


def unwritable(path: Path) -> bool:
    """Whether a file that is there lies on a file system that is mounted read-only, on which nobody changes it from here."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False

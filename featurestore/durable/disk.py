"""The disk: what makes a file or a name in a folder last beyond a crash of the machine, and what an error of it means to the
one who has to do something about that."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featurestore.errors import LogError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_TEXTS = {os.strerror(code) for code in FULL}


def sync(descriptor: int) -> None:
    """Return when what was written to a file, and its length, are on the disk."""
    if sys.platform == "darwin":  # fsync there stops at the disk's own cache
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview, at: int) -> None:
    """Write all bytes at an offset; the system may take fewer at once."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def open_file(path: Path, *, create: bool = False) -> int:
    """The descriptor of a file to be read and written; on a read-only file system, of one that is there, to be read."""
    try:
        return os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno != errno.EROFS or not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def replace(path: Path, content: bytes) -> None:
    """Put a file in the place of another at once: a reader, and a crash, find the old one or the new one, whole; an error the old one."""
    with replacing(path, content):
        pass


@contextmanager
def replacing(path: Path, content: bytes, *, lasting: bool = True, mode: int = 0o644) -> Iterator[None]:
    """`replace` once what is done meanwhile is done, for which there is room by then. lasting: whether it is on the disk when this ends.
    mode: of the file, less what the umask takes."""
    partial = path.with_name(path.name + ".partial")
    try:
        _write_whole(partial, content, lasting=lasting, mode=mode)
        yield
        partial.rename(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if lasting:
        sync_folder(path.parent)


def write_file(path: Path, content: str | bytes, *, lasting: bool = True) -> None:
    """Write a file that somebody named, in the place of one that was there: all of it, or nothing. What is there and is no file, such as
    /dev/stdout, is written to, and of a link what it leads to. OSError, with the path. lasting: as of `replacing`."""
    data = content.encode() if isinstance(content, str) else content
    place = path.resolve() if path.is_symlink() else path
    try:
        if place.exists() and not place.is_file():
            place.write_bytes(data)
            return
        if not place.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {place.parent}", str(path))
        with replacing(place, data, lasting=lasting, mode=0o666):
            pass
    except OSError as error:
        error.filename = str(path)  # and not what is written beside it
        raise


def _write_whole(path: Path, content: bytes, *, lasting: bool = True, mode: int = 0o644) -> None:
    """Make a file of these bytes. lasting: they are on the disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, content, 0)
        if lasting:
            sync(descriptor)
    finally:
        os.close(descriptor)


def put_new(path: Path, content: bytes) -> None:
    """Put a file where there is none, whole; of several that do so at once the first wins, and nobody waits for another.

    On a file system without hard links, the last wins.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        _write_whole(partial, content)
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def is_full(error: OSError) -> bool:
    """Whether there is no room: on the disk, in a quota, or below a limit of files' sizes."""
    return error.errno in FULL


def came_of_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, says that there is no room, whichever library says it."""
    while error is not None:
        codes = {getattr(error, "errno", None), getattr(error, "code", None)}
        if codes & FULL or getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            return True
        if str(error).rpartition(": ")[2] in _FULL_TEXTS:  # LMDB's binding before version 2 has no codes
            return True
        error = error.__cause__ or error.__context__
    return False


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


def error_of(error: OSError, path: Path) -> LogError:
    """What an error of the file system means for a file of the log."""
    if is_full(error):
        return LogError(
            f"The push log cannot write {path}: the disk, a quota or a file size limit is full ({error.strerror}). "
            "Nothing of this append was kept, and all that was there stays; make room and append again."
        )
    if error.errno == errno.EROFS:
        return LogError(f"The push log cannot write {path}: read-only file system. All that was there can be read.")
    return LogError(f"The push log failed at {path}: {told(error)}.")

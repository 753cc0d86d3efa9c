"""What became of the requests that a process served: counters in a file, which outlive the process however it ends.

    <folder>/processes/<process>    u64 each: requests offered, written, dropped; then when an error last cost some
                                    (µs, 0: never), and what it was (UTF-8, to the first zero byte); a CRC-32 of the
                                    three counters (u32), and four zero bytes
    <folder>/processes/ended.json   the sum of processes that ended, with its own checksum

The process holds a lock on its file as long as it lives, so that nobody takes what still waits in it for lost; the file appears
locked, and nobody is waited for. Where the folder cannot be written, the counts are in memory until it can.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from featurestore.durable.checksums import decoded, encoded
from featurestore.durable.disk import replace
from featurestore.durable.forks import closed_in_child
from featurestore.durable.lock import close
from featurestore.durable.own_folder import own_folder

COUNTERS = struct.Struct("<QQQ")
ERROR = struct.Struct("<Q200s")
CHECK = struct.Struct("<I4x")
UNCHECKED = COUNTERS.size + ERROR.size
"""Bytes of a file of an earlier version, which has no checksum."""

SIZE = UNCHECKED + CHECK.size
PROCESSES = "processes"
ENDED = "ended.json"
"""The sum of processes that ended, with their names, so that a process whose file is still there is not counted twice."""

OLD_ENDED = "ended"
"""That of an earlier version, whose counts are among those of `ENDED` where both are there."""

MAX_LOOKS = 5
"""Times that a file is read whose counters are just being written."""

LAST = (1 << 63) - 1


class Losses(NamedTuple):
    """Requests over all processes that ever wrote: offered, written, dropped (memory or disk was full), and lost by a
    process that ended without writing them; and the last error that cost some, None where there was none."""

    offered: int
    written: int
    dropped: int
    lost: int
    last_error: str | None = None


class ProcessCounts:
    """The counts of this process. Its caller sees to it that one thread changes them at a time."""

    def __init__(self, folder: Path, process: str) -> None:
        self.offered = self.written = self.dropped = 0
        self._path = folder / PROCESSES / process
        self._error = (0, b"")
        self._file: int | None = None
        self._kept: mmap.mmap | None = None

    def map(self) -> mmap.mmap | None:
        """The file, made and locked, for `keep`; None where it is kept already. Raises OSError, and may wait for the disk."""
        if self._kept is not None:
            return None
        own_folder(self._path.parent)
        unseen = self._path.with_name(f".{self._path.name}")
        file = closed_in_child(os.open(unseen, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
        try:
            # Locked before others look into it: a reader that was stopped while it looked would keep this process waiting.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(file, bytes(SIZE), 0)  # and not ftruncate: a page without a place on the disk could fault later
            made = mmap.mmap(file, SIZE)
            unseen.rename(self._path)
        except OSError:
            close(file)
            raise
        self._file = file
        return made

    def keep(self, made: mmap.mmap) -> None:
        """From now on the counts are in the file."""
        self._kept = made
        self.save()
        ERROR.pack_into(made, COUNTERS.size, *self._error)

    def save(self) -> None:
        """Put the counters where they outlive the process."""
        if self._kept is not None:
            counters = COUNTERS.pack(self.offered, self.written, self.dropped)
            self._kept[: COUNTERS.size] = counters
            CHECK.pack_into(self._kept, UNCHECKED, zlib.crc32(counters))

    def failed(self, error: str, *, at: int) -> None:
        """Remember what went wrong at an instant (µs)."""
        self._error = (at, error.encode()[: ERROR.size - 9])
        if self._kept is not None:
            ERROR.pack_into(self._kept, COUNTERS.size, *self._error)

    def ended(self) -> None:
        """What is not written by now will not be; idempotent."""
        self.save()
        if self._file is not None:
            close(self._file)
            self._file = None

    @property
    def is_kept(self) -> bool:
        """Whether the counts are in the file, where `losses` finds them."""
        return self._kept is not None

    def losses(self) -> Losses:
        """The counts as they are in memory; what waits is not lost."""
        return Losses(self.offered, self.written, self.dropped, 0, self._error[1].decode(errors="ignore") or None)


class _Counted(NamedTuple):
    """A file of counts as it was read. names: the processes that it is about. damaged: the counts are not what was written."""

    names: tuple[str, ...]
    counts: tuple[int, int, int, int]
    at: int
    error: str
    damaged: bool = False


def _damaged(path: Path) -> _Counted:
    error = f"the counts in {path} are damaged, and not among these"
    return _Counted((path.name,), (0, 0, 0, 0), LAST, error, damaged=True)


def losses(folder: Path) -> Losses:
    """What became of the requests of all processes; those of a living one that still wait are not lost."""
    totals = [0, 0, 0, 0]
    last, error = 0, ""
    for counted, _ in _read(folder / PROCESSES):
        totals = [total + count for total, count in zip(totals, counted.counts, strict=True)]
        if counted.error and counted.at >= last:
            last, error = counted.at, counted.error
    offered, written, dropped, lost = totals
    return Losses(offered, written, dropped, lost, error or None)


def living(folder: Path) -> list[str]:
    """The processes that write, by their names."""
    return [name for counted, is_alive in _read(folder / PROCESSES) if is_alive for name in counted.names]


def fold_ended(folder: Path) -> int:
    """Put the counts of the processes that ended into one file, and remove theirs; how many there were.

    Killed on the way it counts none twice: the file names those that it counts. What is damaged stays where it is, and nothing
    is put where that is damaged. One caller at a time.
    """
    processes = folder / PROCESSES
    for unseen in processes.glob(".[0-9]*"):  # of a process that was killed before it had counts
        with suppress(FileNotFoundError), unseen.open("rb") as file:  # it is seen by now
            if not _is_locked(file.fileno()):
                unseen.unlink(missing_ok=True)
    read = list(_read(processes))
    if any(counted.damaged for counted, _ in read if counted.names == (ENDED,)):
        return 0
    dead = [counted for counted, alive in read if not alive and not counted.damaged]
    names = [name for counted in dead for name in counted.names if (processes / name).exists()]
    if not names:
        return 0
    last = max(dead, key=lambda counted: counted.at)
    totals = [sum(column) for column in zip(*(counted.counts for counted in dead), strict=True)]
    words = {"counts": totals, "at": last.at, "error": last.error, "names": names}
    replace(processes / ENDED, encoded(words))
    for name in (*names, OLD_ENDED):
        (processes / name).unlink(missing_ok=True)
    return len(names)


def as_ended(folder: Path) -> bytes | None:
    """The file of the sum as it would be if every process had ended just now; None where nothing was ever counted."""
    read = [counted for counted, _ in _read(folder / PROCESSES)]
    if not read:
        return None
    offered, written, dropped, _ = (sum(column) for column in zip(*(one.counts for one in read), strict=True))
    last = max(read, key=lambda one: one.at)
    words = {"counts": [offered, written, dropped, offered - written - dropped], "at": last.at, "error": last.error}
    return encoded({**words, "names": []})


def _read(processes: Path) -> Iterator[tuple[_Counted, bool]]:
    """Each file of counts, with whether its process lives; a process is in one of them."""
    found = [read for path in sorted(processes.glob("[0-9]*")) if (read := _read_one(path)) is not None]
    ended = _read_ended(processes)  # after the others: what was put into it meanwhile is in its names
    if ended is not None:
        yield ended, False
    known = () if ended is None else ended.names
    yield from ((counted, alive) for counted, alive in found if counted.names[0] not in known)


def _read_one(path: Path) -> tuple[_Counted, bool] | None:
    for _ in range(MAX_LOOKS):
        try:
            with path.open("rb") as file:
                alive = _is_locked(file.fileno())
                data = file.read(SIZE)
        except FileNotFoundError:
            return None
        if len(data) < UNCHECKED:  # an earlier version just makes it
            return None
        if len(data) < SIZE or not any(data) or _check(data) == CHECK.unpack_from(data, UNCHECKED)[0]:
            break
    else:
        return _damaged(path), alive
    offered, written, dropped = COUNTERS.unpack_from(data)
    at, text = ERROR.unpack_from(data, COUNTERS.size)
    error = text.partition(b"\0")[0].decode(errors="ignore")
    lost = 0 if alive else offered - written - dropped
    return _Counted((path.name,), (offered, written, dropped, lost), at, error), alive


def _check(data: bytes) -> int:
    return zlib.crc32(data[: COUNTERS.size])


def _read_ended(processes: Path) -> _Counted | None:
    try:
        words = decoded((processes / ENDED).read_bytes())
        return _Counted(tuple(words["names"]), tuple(words["counts"]), words["at"], words["error"])
    except ValueError:
        return _damaged(processes / ENDED)
    except (FileNotFoundError, NotADirectoryError):
        pass
    try:
        counts, error, *names = (processes / OLD_ENDED).read_text().split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    offered, written, dropped, lost = map(int, counts.split())
    at, _, text = error.partition(" ")
    return _Counted(tuple(names), (offered, written, dropped, lost), int(at), text)


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False

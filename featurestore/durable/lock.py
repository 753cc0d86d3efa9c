"""A lock among the threads and processes of one machine, which the kernel takes back from a process that dies.

Two files, as in a turnstile: a process that wants the lock first takes the turn, then waits for the lock, then gives up the
turn. So the one that has just released the lock waits behind the one that holds the turn, and nobody starves.
Every holder has a descriptor of its own, which is what `flock` goes by: threads exclude each other like processes.

A process that is stopped keeps its locks, and nothing can be done in its place: what it was about to write it writes
when it goes on. So nobody waits for ever, and a process that gives up is told who holds the lock; the holder says so in the file.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.clock import to_datetime, wall_clock
from featurestore.durable.disk import is_full
from featurestore.durable.forks import closed_in_child, take_back

LOCK_WAIT_SECONDS = 60.0
"""Seconds for which a lock is waited for, unless something else is said."""

_SHORT, _LONG, _SOON = 0.0002, 0.01, 0.1
"""Seconds between two looks, at first and at last, and how long it is before looks become rare."""


class BusyError(Exception):
    """Somebody else has held a lock for longer than one waits; the text says who, where, since when and what for."""


def close(descriptor: int) -> None:
    """Give up the lock of a descriptor of `closed_in_child`, and close it; nothing in a child that was forked since."""
    if take_back(descriptor):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # at once, whatever child has not yet come to close it
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, *, doing: str, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock of a path, waiting for it. The files stay; not for network file systems without `flock`.

    doing: what for, told to those that give up waiting. wait_seconds: seconds until this one does, with BusyError.
    """
    deadline = time.monotonic() + wait_seconds
    turn = _open(path.with_name(path.name + ".turn"))
    try:
        _wait(turn, path, deadline, wait_seconds)
        held = _open(path)
        try:
            _wait(held, path, deadline, wait_seconds)
            _sign(held, doing)
            _give(turn)
            yield
        finally:
            close(held)
    finally:
        close(turn)


@contextmanager
def attempt(path: Path, *, doing: str) -> Iterator[bool]:
    """Hold the lock of a path where nobody holds it or waits for it; yields whether that is so."""
    turn = _open(path.with_name(path.name + ".turn"))
    try:
        held = _open(path) if taken(turn) else None
        try:
            has_both = held is not None and taken(held)
            if held is not None and has_both:
                _sign(held, doing)
            _give(turn)
            yield has_both
        finally:
            if held is not None:
                close(held)
    finally:
        close(turn)


def _wait(descriptor: int, path: Path, deadline: float, wait_seconds: float) -> None:
    """Take a descriptor's lock. It is asked for again and again: the kernel's own queue has no deadline."""
    began, pause = time.monotonic(), _SHORT
    while not taken(descriptor):
        now = time.monotonic()
        if now >= deadline:
            raise BusyError(f"{path} is locked, and was not free within {wait_seconds:g} s; {_holder(path)}")
        time.sleep(min(pause, max(0.0, deadline - now)))
        pause = min(2 * pause, _LONG if now - began > _SOON else _LONG / 10)


def _sign(descriptor: int, doing: str) -> None:
    """Say who holds the lock. That is for people: where the disk is full, the lock holds all the same."""
    said = json.dumps(
        {"pid": os.getpid(), "host": socket.gethostname(), "since": wall_clock(), "doing": doing}
    ).encode()
    try:
        os.write(descriptor, said)  # it was opened just now, and stands at the beginning
        os.ftruncate(descriptor, len(said))
    except OSError as error:
        if not is_full(error) and error.errno != errno.EIO:
            raise


def _holder(path: Path) -> str:
    """Who holds the lock of a path, by what the file says."""
    try:
        said = json.loads(path.read_bytes())
        since = to_datetime(said["since"]).isoformat(timespec="seconds")
        return (
            f"process {said['pid']} on {said['host']} holds it since {since}, {said['doing']}. Where that process was "
            "stopped or hangs, let it go on or end it: its lock goes with it"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "its file does not say who holds it"


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether this process has the lock of a path, for which nobody waits; the kernel takes it back from one that dies."""
    held = _open(path)
    try:
        yield taken(held)
    finally:
        close(held)


def taken(descriptor: int) -> bool:
    """Whether a descriptor has the lock of its file now, alone; it keeps it until it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _give(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _open(path: Path) -> int:
    return closed_in_child(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))

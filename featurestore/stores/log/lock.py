"""A lock among the threads and processes of one machine, which the kernel takes back from a process that dies.

Two files, as in a turnstile: whoever wants the lock first takes the turn, then waits for the lock, then gives up the
turn. So the one that has just released the lock waits behind the one that holds the turn, and nobody starves.
Every holder has a descriptor of its own, which is what `flock` goes by: threads exclude each other like processes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["attempt", "exclusive"]

_OPEN: set[int] = set()


def _forget() -> None:
    """A child that inherits a descriptor would hold the lock for as long as it lives, were its parent killed."""
    for descriptor in _OPEN:
        os.close(descriptor)
    _OPEN.clear()


os.register_at_fork(after_in_child=_forget)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock of a path, waiting for it. The files stay; not for network file systems without `flock`."""
    turn = _open(path.with_name(path.name + ".turn"))
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        held = _open(path)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            _give(turn)
            yield
        finally:
            _close(held)
    finally:
        _close(turn)


@contextmanager
def attempt(path: Path) -> Iterator[bool]:
    """Hold the lock of a path where nobody holds it or waits for it; yields whether that is so."""
    turn = _open(path.with_name(path.name + ".turn"))
    try:
        held = _open(path) if _taken(turn) else None
        try:
            taken = held is not None and _taken(held)
            _give(turn)
            yield taken
        finally:
            if held is not None:
                _close(held)
    finally:
        _close(turn)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _give(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _OPEN.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    if descriptor in _OPEN:  # not in a child that was forked inside the lock
        _OPEN.remove(descriptor)
        _give(descriptor)
        os.close(descriptor)

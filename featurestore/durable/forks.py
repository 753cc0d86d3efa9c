"""What a forked child must not share with its parent: locks that a thread of the parent held, which nobody would release,
and whatever has a thread, which the child has not; and descriptors by which files are locked, which lock them for both.

A child may use the stores that its parent opened (`gunicorn --preload`, `multiprocessing`): all of this is as new in it.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Protocol
from weakref import WeakSet

_CLOSED: set[int] = set()
_FREED: WeakSet[Any] = WeakSet()
_RENEWED: WeakSet[Any] = WeakSet()


class Renewed(Protocol):
    """What begins anew in a child."""

    def renew(self) -> None:
        """Forget the locks, handles and threads of the parent process."""


def mutex() -> threading.Lock:
    """A lock that is free in a child."""
    made = threading.Lock()
    _FREED.add(made)
    return made


def event() -> threading.Event:
    """An event that nobody in a child waits for, set where it was."""
    made = threading.Event()
    _FREED.add(made)
    return made


def closed_in_child(descriptor: int) -> int:
    """A descriptor that has a lock, itself: a child that inherits it would keep the lock as long as it lives, were its
    parent killed."""
    _CLOSED.add(descriptor)
    return descriptor


def take_back(descriptor: int) -> bool:
    """Whether a descriptor of `closed_in_child` is this process's own still, which from now on sees to it."""
    is_own = descriptor in _CLOSED
    _CLOSED.discard(descriptor)
    return is_own


def renewed_in_child(owner: Renewed) -> None:
    """Call `owner.renew()` in each child, as long as the owner lives."""
    _RENEWED.add(owner)


def _begin_anew() -> None:
    # Descriptors first: what begins anew lets go of its locks, and by a descriptor that is shared that would be the parent's.
    for descriptor in _CLOSED:
        os.close(descriptor)
    _CLOSED.clear()
    for each in list(_FREED):
        each._at_fork_reinit()  # as the standard library does with its own
    for owner in list(_RENEWED):
        owner.renew()


os.register_at_fork(after_in_child=_begin_anew)

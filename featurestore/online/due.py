"""By when a caller of an online store is to be answered, however long the store would take by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf

_due: ContextVar[float] = ContextVar("due", default=inf)
"""By when the caller in this context is to be answered, by the monotonic clock."""


def due() -> float:
    """By when, by the monotonic clock; infinity where nobody said it."""
    return _due.get()


@contextmanager
def due_within(seconds: float) -> Iterator[None]:
    """Calls of online stores, in this thread and meanwhile, end so soon, if need be without an answer."""
    token = _due.set(min(_due.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _due.reset(token)

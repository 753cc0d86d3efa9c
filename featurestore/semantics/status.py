"""Rule 4: the status of a value, judged at the as_of served."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

__all__ = ["Status", "expired"]


class Status(IntEnum):
    """What a null or a value means. The numbers are on the wire and in frames; they never change."""

    MISSING = 0  # the key is unknown at this instant, or null
    EXPIRED = 1  # the key is known, but nothing lies within the ttl, or the newest row's validity has ended
    PRESENT = 2  # the fold's value, which may be null where the row holds null
    OVERFLOW = 3  # beyond what the fold's declared result can hold
    WITHHELD = 4  # stale, and the view says that stale values are withheld


def expired(event_time: Any, until: Any, as_of: Any, ttl: int | None) -> Any:
    """Whether the newest row no longer counts at `as_of`; ints, or numpy arrays of int64 alike.

    The ttl is inclusive; `until` is exclusive, END where the row has none.
    """
    ended = until <= as_of
    return ended if ttl is None else ended | (event_time < as_of - ttl)

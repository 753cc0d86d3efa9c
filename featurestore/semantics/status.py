"""Rule 4: what a value can be."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What a null or a value means. The numbers are on the wire and in frames; they never change."""

    MISSING = 0  # the key is unknown at this instant, or null
    EXPIRED = 1  # the key is known, but nothing lies within the ttl, or the newest row's validity has ended
    PRESENT = 2  # the fold's value, which may be null where the row holds null
    OVERFLOW = 3  # beyond what the fold's declared result can hold
    WITHHELD = 4  # stale, and the view says that stale values are withheld
    UNAVAILABLE = 5  # no value: the online store could not be reached, and the caller takes the default instead

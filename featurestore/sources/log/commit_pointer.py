"""The end of the last acknowledged append (the file `tip`), shared by processes.

It is written after each append and never synced. Within one run of the machine it is exact; after a crash of the
machine it may be behind, never ahead, because the segment is synced first. So it spares the next appender a look
at what is known to be whole, and bytes before it that are no frame are damage and never a torn tail.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["POINTER_LAYOUT", "CommitPointer"]

POINTER_LAYOUT = "<QQQ"
"""Its numbers in the file, as `struct` has them."""


class CommitPointer(NamedTuple):
    """The number of the last segment, its acknowledged bytes, and how often bytes were cut off the log's end."""

    number: int = 0
    size: int = 0
    cuts: int = 0

    def acknowledged(self, number: int) -> int:
        """How many bytes of a segment were certainly acknowledged."""
        return self.size if self.number == number else 0

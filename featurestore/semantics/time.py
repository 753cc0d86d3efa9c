"""Rule 0: which instant a lookup at `t` is answered for, and what was known by then.

Instants are int64 µs since the epoch. For a refreshed view

    as_of(t) = ⌊(t − ready_after − offset) / refresh⌋ · refresh + offset        known_by = as_of + settle

and for a continuous one as_of = known_by = t. Training applies it to every row of the spine, serving to now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from featurestore.semantics.sql import floor_div

__all__ = ["BEGINNING", "END", "Timing"]

BEGINNING = -(1 << 62)
"""−∞ as an instant, far enough inside int64 that durations can be added; the time of rows without time."""

END = 1 << 62
"""+∞ as an instant."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When a view's values change and are served; durations in µs, `refresh` None for a continuous view."""

    refresh: int | None
    offset: int = 0
    settle: int = 0
    ready_after: int = 0

    def as_of(self, t: Any) -> Any:
        """The instant whose values are right at `t`; int or numpy array."""
        if self.refresh is None:
            return t
        return (t - self.ready_after - self.offset) // self.refresh * self.refresh + self.offset

    def as_of_sql(self, t: str) -> str:
        """`as_of` of a BIGINT expression."""
        if self.refresh is None:
            return t
        return f"{floor_div(f'{t} - {self.ready_after + self.offset}', self.refresh)} * {self.refresh} + {self.offset}"

    def known_by(self, as_of: Any) -> Any:
        """Until when (int or numpy array) a row may be learned and still count for `as_of`."""
        return as_of + self.settle

    def due(self, now: int, complete: int | None) -> list[int]:
        """The instants to compute at `now`, oldest first, when `complete` is the newest complete one.

        First the one that lookups ask for already, then the one that can be computed early; both only where they are
        newer than `complete`. A continuous view is computed for now.
        """
        if self.refresh is None:
            wanted = [now]
        else:
            newest = (now - self.settle - self.offset) // self.refresh * self.refresh + self.offset
            wanted = sorted({self.as_of(now), newest})
        return [instant for instant in wanted if complete is None or instant > complete]

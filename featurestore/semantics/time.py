"""Rule 0: which instant a lookup at `t` is answered for, and what was known by then.

Instants are int64 µs since the epoch. For a refreshed view

    as_of(t) = ⌊(t − ready_after − offset) / refresh⌋ · refresh + offset        known_by = as_of + settle

and for a continuous one as_of = known_by = t. Training applies it to every row of the spine, serving to now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from featurestore.semantics.sql import floor_div

BEGINNING = -(1 << 62)
"""−∞ as an instant, far enough inside int64 that durations can be added; the time of rows without time."""

END = 1 << 62
"""+∞ as an instant."""


def last_step(t: Any, step: int, offset: int = 0) -> Any:
    """The last instant k · step + offset at or before `t`; int or numpy array."""
    return (t - offset) // step * step + offset


def last_step_sql(t: str, step: int, offset: int = 0) -> str:
    """`last_step` of a BIGINT expression."""
    return f"{floor_div(f'{t} - {offset}', step)} * {step} + {offset}"


@dataclass(frozen=True, slots=True)
class Timing:
    """When a view's values change and are served; durations in µs, `refresh` None for a continuous view."""

    refresh: int | None
    offset: int = 0
    settle: int = 0
    ready_after: int = 0

    def as_of(self, t: Any) -> Any:
        """The instant whose values are right at `t`; int or numpy array."""
        return self.instant(t - self.ready_after) if self.refresh else t

    def as_of_sql(self, t: str) -> str:
        """`as_of` of a BIGINT expression."""
        return last_step_sql(f"{t} - {self.ready_after}", self.refresh, self.offset) if self.refresh else t

    def instant(self, t: Any) -> Any:
        """The last instant of a refreshed view at or before `t`; int or numpy array."""
        assert self.refresh is not None
        return last_step(t, self.refresh, self.offset)

    def first(self, t: Any) -> Any:
        """The first instant of a refreshed view at or after `t`; int or numpy array."""
        assert self.refresh is not None
        return self.instant(t + self.refresh - 1)

    def first_sql(self, t: str) -> str:
        """`first` of a BIGINT expression."""
        assert self.refresh is not None
        return last_step_sql(f"{t} + {self.refresh - 1}", self.refresh, self.offset)

    def served(self, complete: Iterable[int], now: int) -> int | None:
        """The instant that lookups at `now` are answered for, of the complete ones, newest first; None where it is none."""
        wanted = self.as_of(now)
        return next((instant for instant in complete if instant <= wanted), None)

    def served_from(self, instant: Any) -> Any:
        """From when on (int or numpy array) lookups ask for an instant."""
        return instant + self.ready_after

    def served_from_sql(self, instant: str) -> str:
        """`served_from` of a BIGINT expression."""
        return f"{instant} + {self.ready_after}"

    def is_late(self, as_of: int, now: int, *, lag: int = 0) -> bool:
        """Rule 5: whether values as of an instant are older at `now` than the view promises, by more than `lag` (µs)."""
        late: bool = as_of < self.as_of(now) - lag
        return late

    def known_by(self, as_of: Any) -> Any:
        """Until when (int or numpy array) a row may be learned and still count for `as_of`."""
        return as_of + self.settle

    def known_by_sql(self, as_of: str) -> str:
        """`known_by` of a BIGINT expression."""
        return f"{as_of} + {self.settle}"

    def due(self, now: int, complete: int | None) -> list[int]:
        """The instants to compute at `now`, oldest first, when `complete` is the newest complete one.

        First the one that lookups ask for already, then the one that can be computed early; both only where they are
        newer than `complete`. A continuous view is computed for now.
        """
        wanted = [now] if self.refresh is None else sorted({self.as_of(now), self.instant(now - self.settle)})
        return [instant for instant in wanted if complete is None or instant > complete]

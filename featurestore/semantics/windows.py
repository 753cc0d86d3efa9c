"""Rule 1(c) for windows: which event times count at an as_of.

    start < event_time ≤ end        start = ⌊as_of − offset − length⌋_hop, end = as_of, or ⌊as_of − offset⌋_hop with an offset

The head is exact and the tail moves in hops, in training exactly as online; a hop of 0 makes both exact. Refreshed views
have no hop: their instants are already far apart. A continuous view keeps tiles (b, b + hop], so that a key's state is
bounded; how long they are is part of what the window means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from featurestore.semantics.time import BEGINNING, last_step, last_step_sql

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
HOPS = ((12 * DAY, DAY), (12 * HOUR, HOUR), (HOUR, 5 * MINUTE), (MINUTE, MINUTE))
"""From which length of window on which hop is used; a shorter window is one hop itself."""

FINE_HOPS = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY)
LARGE_FOLD_MAX_TILES = 32
"""The tiles that a sketch or a set may have in one window."""


@dataclass(frozen=True, slots=True)
class Span:
    """How far back a fold sees; µs. length None: for the whole lifetime."""

    length: int | None
    offset: int = 0
    hop: int = 0

    def start(self, as_of: Any) -> Any:
        """The instant after which rows count (exclusive); int or numpy array of int64."""
        if self.length is None:
            return as_of * 0 + (BEGINNING - 1)  # so that rows without time are inside
        return self._floored(as_of - self.offset - self.length)

    def end(self, as_of: Any) -> Any:
        """The last instant at which a row counts (inclusive)."""
        return self._floored(as_of - self.offset) if self.offset else as_of

    def _floored(self, instant: Any) -> Any:
        return last_step(instant, self.hop) if self.hop else instant


class TileGrid(NamedTuple):
    """Time cut into tiles (start, start + hop], so that a window whose edges are edges of tiles holds whole tiles."""

    hop: int
    """How long a tile is (µs); 0: there is one tile for all time, which starts at 0."""

    offset: int = 0
    """An instant (µs) at which one of the tiles starts."""

    def start(self, event_time: Any) -> Any:
        """The start of the tile in which an instant lies; int or numpy array of int64."""
        return last_step(event_time - 1, self.hop, self.offset) if self.hop else event_time * 0

    def start_sql(self, event_time: str) -> str:
        """`start` of a BIGINT expression; there is a hop."""
        return last_step_sql(f"{event_time} - 1", self.hop, self.offset)

    def cuts(self, instant: int) -> bool:
        """Whether an instant lies inside a tile, so that an edge of a window there cuts it."""
        return bool(self.start(instant) + self.hop != instant)


def default_hop(length: int, *, few: bool) -> int:
    """The hop of a continuous window of `length` µs, never longer than that; `few`: of a fold whose tiles are large."""
    if few:
        return min(
            length,
            next(
                (hop for hop in FINE_HOPS if length <= hop * LARGE_FOLD_MAX_TILES), -(-length // LARGE_FOLD_MAX_TILES)
            ),
        )
    return next((hop for least, hop in HOPS if length >= least), length)

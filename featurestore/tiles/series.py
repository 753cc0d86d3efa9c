"""What a continuous view over pushed rows keeps for a key: states of its folds, one a tile.

Windows of one hop share a *lane* of tiles (b, b + hop]; what has no window is one tile for all time. In each tile lies
the state of each of the lane's *cells*, a fold of one column under one condition; folds whose states are the same, such as a
sum and a mean, share one. A value at as_of is the merge of the tiles that lie within the window (rule 1): the newest tile
holds nothing later, since no row is applied before its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from featurestore.semantics.folds import FOLDS, Algebra, State
from featurestore.semantics.judge import ended, expire
from featurestore.semantics.rows import before_ttl
from featurestore.semantics.status import Status
from featurestore.semantics.time import END
from featurestore.semantics.view import ResolvedFeature, ResolvedView, algebra_of
from featurestore.semantics.windows import Span, TileGrid
from featurestore.types import Int64

__all__ = [
    "Number",
    "PartialAggregate",
    "PushedRow",
    "Replaced",
    "TileRange",
    "TileReader",
    "TileSeries",
    "ViewTiles",
    "event_time_of",
    "pushed_place",
]

UNTIL = ""
"""The name of the column that holds the end of a row's validity (µs, END where open); no column of a source has it."""

UNTIL_FOLD = FOLDS["Latest"].algebra(Int64, Int64)


Number = tuple[str | None, str | None, str]
"""What an integer of a tile is: of which column, under which condition, and what of it. Aggregates share those of one name."""


class TileRange(NamedTuple):
    """One cell of a lane (their numbers), merged over the tiles whose b (µs) is from `first` through `last`; None: from or to
    the end."""

    lane: int
    cell: int
    first: int | None
    last: int | None


class TileReader(Protocol):
    """The tiles of several records."""

    @property
    def instants(self) -> Sequence[int]:
        """The instant (µs) that each record is true for."""

    @property
    def known(self) -> Sequence[int]:
        """How many current rows there are of each record."""

    def merged(self, wanted: Sequence[TileRange]) -> Sequence[Sequence[State]]:
        """For each of `wanted` the state of every record."""


class PushedRow(NamedTuple):
    """A current row as lanes take it: event_time and known_at (µs), its place by rule 2, scalars by column (UNTIL included),
    and which conditions hold."""

    key: tuple[Any, ...]
    event_time: int
    known_at: int
    place: bytes
    values: dict[str, Any]
    holds: dict[str, bool]


class Replaced(NamedTuple):
    """A row that counted until a later version of it was known, at `since`."""

    row: PushedRow
    since: int


class PartialAggregate(NamedTuple):
    """One fold of one column under one condition."""

    algebra: Algebra
    column: str | None
    where: str | None

    @property
    def numbers(self) -> tuple[Number, ...]:
        """What a tile keeps of it where that is so many integers, which add up; () where it is a packed state."""
        return tuple([(self.column, self.where, name) for name in self.algebra.numbers])

    def lift(self, row: PushedRow) -> State | None:
        """The row's state, None where it does not count."""
        if self.where is not None and not row.holds[self.where]:
            return None
        value = None if self.column is None else row.values[self.column]
        if value is None and not self.algebra.takes_null:
            return None
        return self.algebra.lift(value, row.place)


class TileSeries(NamedTuple):
    """The tiles of one grid: what is kept in each of them, and how far back they can matter."""

    grid: TileGrid
    reach: Span
    """The longest window of its features: tiles that start before it can be forgotten."""

    cells: tuple[PartialAggregate, ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Which of the merged states is a feature's; which has the newest row that its condition lets through, where its own
    does not say what the ttl is judged on, and which says when the validity of its row ends (None: none)."""

    feature: ResolvedFeature
    algebra: Algebra
    state: int
    newest: int | None
    until: int | None


class ViewTiles:
    """The lanes of a view, and how its features are read from them."""

    def __init__(self, view: ResolvedView) -> None:
        self.view = view
        found: dict[int, dict[Any, PartialAggregate]] = {}
        lengths: dict[int, set[int | None]] = {}
        places = []
        for feature in view.features:
            span = feature.span or Span(None)
            cells = found.setdefault(span.hop, {})
            own = _index(cells, PartialAggregate(algebra_of(feature), feature.fold.column, feature.where))
            newest = until = None
            latest = PartialAggregate(UNTIL_FOLD, UNTIL, feature.where)
            if view.ttl is not None and feature.ttl_counts_nulls:
                newest = _index(cells, latest)
            if feature.fold.kind == "Latest" and view.source.until is not None:
                until = _index(cells, latest)
            places.append((feature, algebra_of(feature), span.hop, own, newest, until))
            lengths.setdefault(span.hop, set()).add(None if span.length is None else span.offset + span.length)
        hops = sorted(found)
        self.lanes = tuple(
            TileSeries(TileGrid(hop), _longest(lengths[hop], hop), tuple(found[hop].values())) for hop in hops
        )
        self._merges: list[tuple[int, int, int]] = []  # each the lane, the cell and the number of the span
        self._spans: list[Span | None] = []
        self._readings = tuple(
            _Reading(f, of, self._merge(hops.index(hop), own, f.span),
                     None if newest is None else self._merge(hops.index(hop), newest, f.span),
                     None if until is None else self._merge(hops.index(hop), until, f.span))
            for f, of, hop, own, newest, until in places
        )  # fmt: skip
        self.conditions = tuple(dict.fromkeys(f.where for f in view.features if f.where is not None))

    def columns(self, tiles: TileReader, as_of: int) -> tuple[list[list[Any]], list[list[Status]]]:
        """For each feature, in the view's order, the values and the statuses at `as_of` of keys that are known."""
        reaches = [_reach(span, as_of) for span in self._spans]
        states = tiles.merged([TileRange(lane, cell, *reaches[span]) for lane, cell, span in self._merges])
        found = [self._finished(reading, states, as_of) for reading in self._readings]
        return [values for values, _ in found], [statuses for _, statuses in found]

    def _merge(self, lane: int, cell: int, span: Span | None) -> int:
        """The number of a merged state, which features of one cell and span share."""
        if span not in self._spans:
            self._spans.append(span)
        merge = (lane, cell, self._spans.index(span))
        if merge not in self._merges:
            self._merges.append(merge)
        return self._merges.index(merge)

    def _finished(
        self, reading: _Reading, states: Sequence[Sequence[State]], as_of: int
    ) -> tuple[list[Any], list[Status]]:
        feature, algebra, own = reading.feature, reading.algebra, states[reading.state]
        expired: set[int] = set()
        if feature.span is None and self.view.ttl is not None:
            ttl = self.view.ttl
            own = [_within_ttl(state, as_of, ttl) for state in own]
            newest = own if reading.newest is None else [_within_ttl(s, as_of, ttl) for s in states[reading.newest]]
            expired = {row for row, state in enumerate(newest) if not state}
        if reading.until is not None:
            ends = map(UNTIL_FOLD.finish, states[reading.until])
            expired |= {row for row, (until, _) in enumerate(ends) if until is not None and ended(until, as_of)}
        values, statuses = algebra.finish_many(own)
        expire(expired, values, statuses, feature.default)
        return values, statuses


def _index(cells: dict[Any, PartialAggregate], cell: PartialAggregate) -> int:
    """The number of a cell; those that keep the same numbers and only finish them differently are one."""
    kept = cell.numbers or cell
    cells.setdefault(kept, cell)
    return list(cells).index(kept)


def _longest(lengths: set[int | None], hop: int) -> Span:
    return Span(None if None in lengths else max(length for length in lengths if length is not None), hop=hop)


def _reach(span: Span | None, as_of: int) -> tuple[int | None, int | None]:
    """The first and the last b of the tiles that a window sees."""
    if span is None or not span.hop:
        return None, None
    return span.start(as_of), span.end(as_of) - span.hop if span.offset else None


def _within_ttl(state: State, as_of: int, ttl: int) -> State:
    """The rows of a picking fold's state, (place, value) or several of them, that lie within the ttl."""
    if state and isinstance(state[0], bytes):
        return () if before_ttl(event_time_of(state[0]), as_of, ttl) else state
    return tuple(row for row in state if not before_ttl(event_time_of(row[0]), as_of, ttl))


def pushed_place(event_time: int, known_at: int) -> bytes:
    """A pushed row's position by rule 2: no two rows of a log have one known_at, so nothing else decides."""
    return (event_time + END * 2).to_bytes(8, "big") + (known_at + END * 2).to_bytes(8, "big")


def event_time_of(place: bytes) -> int:
    """The event_time (µs) of a row, from its place."""
    return int.from_bytes(place[:8], "big") - END * 2

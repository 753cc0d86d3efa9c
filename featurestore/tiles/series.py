"""The tiles that a continuous view over pushed rows keeps for each key, and how features are read from them.

Windows of one hop share a *series* of tiles (start, start + hop]; what has no window is one tile for all time. A tile holds
a state of each *partial aggregate*: a fold of one column under one condition. Folds whose states are the same, such as a sum
and a mean, share one. A value at as_of is the merge of the tiles that lie within the window (rule 1): the newest tile
holds nothing later, since no row is applied before its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

from featurestore.semantics.folds import FOLDS, Algebra, State
from featurestore.semantics.judge import ended, expire
from featurestore.semantics.order import event_time_of
from featurestore.semantics.rows import before_ttl
from featurestore.semantics.status import Status
from featurestore.semantics.view import ResolvedFeature, ResolvedView, algebra_of
from featurestore.semantics.windows import Span, TileGrid
from featurestore.types import Int64

UNTIL = ""
"""The name of the column that holds the end of a row's validity (µs, END where open); no column of a source has it."""

UNTIL_FOLD = FOLDS["Latest"].algebra(Int64, Int64)


Number = tuple[str | None, str | None, str]
"""The name of an integer that tiles keep: of which column, under which condition, and what it counts or adds up. Aggregates
share those of one name."""


class TileRange(NamedTuple):
    """Neighbouring tiles, to be merged to one state of each of some aggregates."""

    series: int
    """The number of the series in its view."""

    first: int | None
    """The start of the first tile (µs); None: from the oldest on."""

    last: int | None
    """The start of the last tile; None: up to the newest."""

    aggregates: Sequence[int]
    """The numbers of the aggregates in the series."""


class TileReader(Protocol):
    """The tiles of several records."""

    @property
    def instants(self) -> Sequence[int]:
        """The instant (µs) that each record is true for."""

    @property
    def rows(self) -> Sequence[int]:
        """How many current rows there are of each record."""

    def merged(self, ranges: Sequence[TileRange]) -> Sequence[Sequence[State]]:
        """For each aggregate of each of `ranges`, one after the other, the state of every record."""


class PushedRow(NamedTuple):
    """A current row, ready to be merged into tiles."""

    key: tuple[Any, ...]
    """Its key; () where what reads it knows the key."""

    event_time: int
    """µs"""

    known_at: int
    """µs"""

    place: bytes
    """Where rule 2 puts it among the rows of its key."""

    values: dict[str, Any]
    """Canonical scalars by column, UNTIL included."""

    holds: dict[str, bool]
    """Whether each condition holds, by its text."""


class Replaced(NamedTuple):
    """A row that counted until a later version of it was known."""

    row: PushedRow

    since: int
    """When that version was known (µs)."""


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
    """The tiles of one hop."""

    grid: TileGrid

    reach: Span
    """The longest window of its features: tiles that start before it can be forgotten."""

    aggregates: tuple[PartialAggregate, ...]
    """What is kept in each of them."""


@dataclass(frozen=True, slots=True)
class _FeatureReading:
    """How one feature is read from merged states, which are numbered."""

    feature: ResolvedFeature
    algebra: Algebra

    state: int
    """Its own."""

    newest: int | None
    """The one with the newest row that its condition lets through, where its own does not say what the ttl is judged on."""

    until: int | None
    """The one that says when the validity of its row ends; None: it has no end."""

    ttl: int | None
    """How far back its rows count (µs); None: its window says it, or nothing does."""

    @property
    def is_settled(self) -> bool:
        """Whether its own state says all, whenever it is read."""
        return self.ttl is None and self.until is None


_Merge = tuple[tuple[int, Span | None], int]
"""A merged state: the number of its series and its span, and its place among the aggregates merged over them."""


class ViewTiles:
    """The series of tiles of a view, and how its features are read from them."""

    def __init__(self, view: ResolvedView) -> None:
        self.view = view
        hops = sorted({_span(feature).hop for feature in view.features})
        kept: list[dict[Any, PartialAggregate]] = [{} for _ in hops]
        merges: dict[tuple[int, Span | None], list[int]] = {}

        def merged(feature: ResolvedFeature, aggregate: PartialAggregate) -> _Merge:
            """Where a merged state will stand, which features of one aggregate and span share."""
            series = hops.index(_span(feature).hop)
            number, own = _index(kept[series], aggregate), merges.setdefault((series, feature.span), [])
            if number not in own:
                own.append(number)
            return (series, feature.span), own.index(number)

        found = []
        for feature in view.features:
            algebra, latest = algebra_of(feature), PartialAggregate(UNTIL_FOLD, UNTIL, feature.where)
            own = merged(feature, PartialAggregate(algebra, feature.fold.column, feature.where))
            newest = merged(feature, latest) if view.ttl is not None and feature.ttl_counts_nulls else None
            ends = feature.fold.kind == "Latest" and view.source.until is not None
            found.append((feature, algebra, own, newest, merged(feature, latest) if ends else None))
        self.series = tuple(
            TileSeries(TileGrid(hop), _longest(view, hop), tuple(own.values()))
            for hop, own in zip(hops, kept, strict=True)
        )
        self.aggregates = tuple(dict.fromkeys(each for series in self.series for each in series.aggregates))
        """All that is kept, in whichever series."""
        self._windows = [(series, span, tuple(own)) for (series, span), own in merges.items()]
        """Of each window the number of its series, its span, and the numbers of the aggregates that are merged over it."""
        firsts = dict(zip(merges, accumulate(map(len, merges.values()), initial=0), strict=False))

        def place(merge: _Merge | None) -> int | None:
            return None if merge is None else firsts[merge[0]] + merge[1]

        self._readings = [
            _FeatureReading(
                feature, algebra, firsts[own[0]] + own[1], place(newest), place(until),
                view.ttl if feature.span is None else None,
            )
            for feature, algebra, own, newest, until in found
        ]  # fmt: skip
        self._finishes = [
            (reading.algebra.finish_many if reading.is_settled else None, reading.state, reading)
            for reading in self._readings
        ]
        self.conditions = tuple(dict.fromkeys(f.where for f in view.features if f.where is not None))

    def columns(self, tiles: TileReader, as_of: int) -> tuple[list[list[Any]], list[list[Status]]]:
        """For each feature, in the view's order, the values and the statuses at `as_of` of keys that are known."""
        states = tiles.merged([TileRange(series, *_reach(span, as_of), own) for series, span, own in self._windows])
        found = [
            finish(states[own]) if finish is not None else _judged(reading, states, as_of)
            for finish, own, reading in self._finishes
        ]
        return [values for values, _ in found], [statuses for _, statuses in found]


def _judged(reading: _FeatureReading, states: Sequence[Sequence[State]], as_of: int) -> tuple[list[Any], list[Status]]:
    """The values and statuses of a feature whose rows may have gone out of its ttl, or come to their end."""
    feature, own, ttl = reading.feature, states[reading.state], reading.ttl
    expired: set[int] = set()
    if ttl is not None:
        own = [_within_ttl(state, as_of, ttl) for state in own]
        newest = own if reading.newest is None else [_within_ttl(s, as_of, ttl) for s in states[reading.newest]]
        expired = {row for row, state in enumerate(newest) if not state}
    if reading.until is not None:
        ends = map(UNTIL_FOLD.finish, states[reading.until])
        expired |= {row for row, (until, _) in enumerate(ends) if until is not None and ended(until, as_of)}
    values, statuses = reading.algebra.finish_many(own)
    if expired:
        expire(expired, values, statuses, feature.default)
    return values, statuses


def _index(aggregates: dict[Any, PartialAggregate], aggregate: PartialAggregate) -> int:
    """The number of an aggregate; those that keep the same numbers and only finish them differently are one."""
    kept = aggregate.numbers or aggregate
    aggregates.setdefault(kept, aggregate)
    return list(aggregates).index(kept)


def _span(feature: ResolvedFeature) -> Span:
    return feature.span or Span(None)


def _longest(view: ResolvedView, hop: int) -> Span:
    """A window that is as long as the longest of one hop, offset included."""
    spans = [span for span in map(_span, view.features) if span.hop == hop]
    lengths = [span.offset + span.length for span in spans if span.length is not None]
    return Span(max(lengths) if len(lengths) == len(spans) else None, hop=hop)


def _reach(span: Span | None, as_of: int) -> tuple[int | None, int | None]:
    """The starts of the first and of the last tile within a window."""
    if span is None or not span.hop:
        return None, None
    return span.start(as_of), span.end(as_of) - span.hop if span.offset else None


def _within_ttl(state: State, as_of: int, ttl: int) -> State:
    """The rows of a picking fold's state, (place, value) or several of them, that lie within the ttl."""
    if state and isinstance(state[0], bytes):
        return () if before_ttl(event_time_of(state[0]), as_of, ttl) else state
    return tuple(row for row in state if not before_ttl(event_time_of(row[0]), as_of, ttl))

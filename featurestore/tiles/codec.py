"""The record of a key of a continuous view over pushed rows: lanes of tiles, as bytes.

record   format (u8), instant (i64): the known_at of the newest row in it, known (i64): how many current rows there are;
         then the lanes, see `tile_layout`
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple, NoReturn

from featurestore.errors import OnlineStoreError
from featurestore.semantics.folds import Algebra, State
from featurestore.semantics.windows import TileGrid
from featurestore.tiles.block import TileBlock
from featurestore.tiles.layout import HEAD, Columns, SeriesLayout, TileFormat
from featurestore.tiles.series import PartialAggregate, PushedRow, Replaced, TileRange, TileReader, ViewTiles

__all__ = ["MANY", "TileCodec", "TileRecord"]

FORMAT = 3
NEVER = -(1 << 63)

MANY = 8
"""Records from which on it is quicker to read them all at once."""


class _Lifted(NamedTuple):
    """What a row adds to the tile of its time."""

    event_time: int

    shares: list[tuple[int, int, int]]
    """What it adds to each number: the place of that among all, an odd integer and a power of two."""

    states: list[State | None]
    """Its state in each other cell."""


class TileRecord(NamedTuple):
    """A record: the instant that it is true for, how many current rows there are, and the lanes as they lie in it."""

    instant: int
    known: int
    record: bytes
    lanes: list[SeriesLayout]


class _Merging(NamedTuple):
    """How rows are merged into a lane: the column of each number (None: not in this lane), and of each other cell its
    algebra, its column and the place of its state."""

    columns: list[int | None]
    others: list[tuple[Algebra, int, int]]


class TileCodec:
    """Packs and unpacks the records of one view, and merges rows into them."""

    def __init__(self, lanes: ViewTiles) -> None:
        self._forms = [TileFormat(lane) for lane in lanes.lanes]
        self._empty = TileRecord(NEVER, 0, b"", [SeriesLayout(0, 0, 0, (), (), (), ()) for _ in self._forms])
        cells = list(dict.fromkeys(cell for form in self._forms for cell in form.lane.cells))
        names = list(dict.fromkeys(name for form in self._forms for name in form.names))
        others = [cell for cell in cells if not cell.numbers]
        self._others = others
        self._additive: list[tuple[PartialAggregate, list[tuple[int, int]]]] = []
        new = set(names)
        for cell in cells:
            owned = [(share, names.index(name)) for share, name in enumerate(cell.numbers) if name in new]
            new -= {*cell.numbers}
            if owned:
                self._additive.append((cell, owned))
        self._mergings = [
            _Merging(
                [form.names.index(name) if name in form.names else None for name in names],
                [
                    (cell.algebra, place.other, others.index(cell))
                    for cell, place in zip(form.lane.cells, form.places, strict=True)
                    if not place.numbers
                ],
            )
            for form in self._forms
        ]

    def instant(self, record: bytes | None) -> int:
        """The instant that a record is true for; the least int for none."""
        return NEVER if record is None else self._head(record)[1]

    def unpack(self, record: bytes) -> TileRecord:
        """A record, taken apart; OnlineStoreError where another version wrote it."""
        _, instant, known = self._head(record)
        lanes, at = [], HEAD.size
        for lane in self._forms:
            lay = lane.lay(record, at)
            lanes.append(lay)
            at = lay.end
        return TileRecord(instant, known, record, lanes)

    def _head(self, record: bytes) -> tuple[int, int, int]:
        head: tuple[int, int, int] = HEAD.unpack_from(record)
        if head[0] != FORMAT:
            _refuse(head[0])
        return head

    def read(self, records: Sequence[bytes]) -> TileReader:
        """The tiles of several records, to merge those of any windows."""
        if len(records) < MANY:
            return _Few(self._forms, [self.unpack(record) for record in records])
        other = {record[0] for record in records} - {FORMAT}
        if other:
            _refuse(min(other))
        return TileBlock(self._forms, records)

    def changed(
        self,
        record: bytes | None,
        added: Iterable[PushedRow],
        replaced: Iterable[Replaced] = (),
        *,
        instant: int = NEVER,
    ) -> bytes | None:
        """A record (None: there is none yet) with rows merged into it and others taken out of it, true at least for `instant`.

        A row that the record knows of already, by its own instant, changes nothing. Tiles that are out of reach are left out.
        Every cell must be additive where rows are taken out: a tile that is out of reach is gone already, and of one that is
        there nothing was ever left out. None where no rows are left.
        """
        kept = self._empty if record is None else self.unpack(record)
        new = [row for row in added if row.known_at > kept.instant]
        gone = [old for old in replaced if old.since > kept.instant]
        known = kept.known + len(new) - len(gone)
        if not known:
            return None
        instant = max([kept.instant, instant, *[row.known_at for row in new], *[old.since for old in gone]])
        plus, minus = [self._lifted(row) for row in new], [self._lifted(old.row) for old in gone]
        parts = [HEAD.pack(FORMAT, instant, known)]
        for form, merging, lay in zip(self._forms, self._mergings, kept.lanes, strict=True):
            columns = form.columns(kept.record, lay)
            _add(columns, form.lane.grid, plus, merging)
            _subtract(columns, form.lane.grid, minus, merging)
            if form.lane.reach.length is not None:
                columns.trim(form.lane.reach.start(instant))
            parts.append(form.packed(columns))
        return b"".join(parts)

    def _lifted(self, row: PushedRow) -> _Lifted:
        shares = []
        for cell, owned in self._additive:
            state = cell.lift(row)
            if state is None:
                continue
            numbers = state if isinstance(state, tuple) else (state,)
            for share, name in owned:
                value = numbers[share]
                if value:
                    zeros = (value & -value).bit_length() - 1
                    shares.append((name, value >> zeros, zeros))
        return _Lifted(row.event_time, shares, [cell.lift(row) for cell in self._others])


class _Few:
    """The tiles of a few records, one after the other."""

    def __init__(self, forms: Sequence[TileFormat], kept: Sequence[TileRecord]) -> None:
        self._forms, self._kept = forms, kept
        self.instants = [each.instant for each in kept]
        self.known = [each.known for each in kept]

    def merged(self, wanted: Sequence[TileRange]) -> list[list[State]]:
        """See semantics.lanes.Tiles."""
        found: list[list[State]] = [[] for _ in wanted]
        for kept in self._kept:
            windows: dict[tuple[int, int | None, int | None], _Window] = {}
            for states, (lane, cell, first, last) in zip(found, wanted, strict=True):
                window = windows.get((lane, first, last))
                if window is None:
                    window = _Window(self._forms[lane], kept.record, kept.lanes[lane], first, last)
                    windows[lane, first, last] = window
                states.append(window.merged(cell))
        return found


class _Window:
    """The tiles of one lane of a record whose b is from `first` through `last`."""

    def __init__(self, form: TileFormat, record: bytes, lay: SeriesLayout, first: int | None, last: int | None) -> None:
        self._form, self._record, self._lay = form, record, lay
        self._low = 0 if first is None else bisect_left(lay.body, first, 0, lay.tiles)
        self._high = lay.tiles if last is None else bisect_right(lay.body, last, 0, lay.tiles)
        self._totals: dict[int, int] = {}

    def merged(self, cell: int) -> State:
        """The state of a cell."""
        form, (numbers, other) = self._form, self._form.places[cell]
        if not numbers:
            states = form.states(self._record, self._lay, other) if self._low < self._high else []
            return form.merges[cell](states[self._low : self._high])
        totals = self._totals
        for number in numbers:
            if number not in totals:
                totals[number] = form.total(self._lay, number, self._low, self._high)
        return totals[numbers[0]] if len(numbers) == 1 else tuple([totals[number] for number in numbers])


def _add(columns: Columns, grid: TileGrid, rows: Iterable[_Lifted], merging: _Merging) -> None:
    """Merge rows into their tiles."""
    by_tile: dict[int, list[_Lifted]] = {}
    for row in rows:
        by_tile.setdefault(grid.start(row.event_time), []).append(row)
    for start, its in by_tile.items():
        tile = columns.found(start)
        for row in its:
            columns.increase(tile, row.shares, merging.columns)
        for algebra, other, own in merging.others:
            several = [row.states[own] for row in its if row.states[own] is not None]
            if several:
                state: State = reduce(algebra.merge, several)
                states = columns.states[other]
                if states[tile]:
                    state = algebra.merge(algebra.unpack(states[tile]), state)
                states[tile] = algebra.pack(state)


def _subtract(columns: Columns, grid: TileGrid, rows: Iterable[_Lifted], merging: _Merging) -> None:
    """Take rows out of their tiles, where these are still there."""
    for row in rows:
        tile = columns.find(grid.start(row.event_time))
        if tile is not None:
            columns.increase(tile, [(name, -odd, zeros) for name, odd, zeros in row.shares], merging.columns)


def _refuse(form: int) -> NoReturn:
    raise OnlineStoreError(
        f"The online store holds records of format {form}, and this version reads {FORMAT}; run featurestore materialize "
        "--full, which makes them anew from the push log"
    )

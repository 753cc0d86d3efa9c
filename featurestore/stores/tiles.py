"""The record of a key of a continuous view over pushed rows: lanes of tiles, as bytes.

    record   format (u8), instant (i64): the known_at of the newest row in it, known (i64): how many current rows there are;
             then the lanes
    lane     how many tiles there are (u32) and, where there are any, for each number of its additive cells shift and width
             (u16 each), for each other cell its size (u32); the b of each tile (i64), oldest first; then the columns
    column   of a number, a tile after the other: integers of `width` bytes (0: all are 0), to be multiplied by 2^shift; those
             wider than 8 bytes as one run of 8 bytes of each, the lowest first. Of another cell the packed states, as runs

Numbers are little-endian. States lie by column, so that a window's sum is one sum of the end of each of its columns; a
lookup unpacks nothing else.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import or_
from typing import NamedTuple

from featurestore.errors import OnlineStoreError
from featurestore.semantics.folds import Additive, Algebra, Consecutive, State
from featurestore.semantics.folds.packing import pack_runs, unpack_runs
from featurestore.semantics.lanes import Lane, Lanes, PushedRow

__all__ = ["Kept", "TileCodec"]

FORMAT = 2
HEAD = struct.Struct("<Bqq")
COUNT = struct.Struct("<I")
SIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}
WIDTHS = (0, 1, 2, 4, 4, 8, 8, 8, 8)
"""The width of a column by the bytes that its widest number needs."""


@dataclass
class Kept:
    """A record: the instant that it is true for, how many current rows there are, and the lanes as they lie in it.

    `open`: the lanes by number of which a row was merged into, instead of their bytes.
    """

    instant: int
    known: int
    record: bytes
    lanes: list[_Lay]
    open: dict[int, _Columns] = field(default_factory=dict)


class _Lay(NamedTuple):
    """Where a lane lies in a record: from `begin` to `end`; its tiles, what its head says, where its columns begin."""

    begin: int
    end: int
    tiles: tuple[int, ...]
    head: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass
class _Columns:
    """A lane taken apart: its tiles, the shift and integers of each number (None: all are 0), the packed states of each
    other cell."""

    tiles: list[int]
    shifts: list[int]
    numbers: list[list[int] | None]
    states: list[list[bytes]]

    def insert(self, tile: int, b: int, zeros: Sequence[bytes]) -> None:
        """A tile without rows; `zeros`: the packed states that are no numbers."""
        self.tiles.insert(tile, b)
        for values in self.numbers:
            if values is not None:
                values.insert(tile, 0)
        for states, zero in zip(self.states, zeros, strict=True):
            states.insert(tile, zero)

    def increase(self, number: int, tile: int, by: int) -> None:
        """Add to a number (`by` is not 0) in units of 2^shift, which becomes lower where it has to."""
        values, shift = self.numbers[number], self.shifts[number]
        zeros = (by & -by).bit_length() - 1
        if values is None:
            values = self.numbers[number] = [0] * len(self.tiles)
            self.shifts[number] = shift = zeros
        elif zeros < shift:
            values[:] = [value << (shift - zeros) for value in values]
            self.shifts[number] = shift = zeros
        values[tile] += by >> shift

    def trim(self, oldest: int) -> None:
        """Forget the tiles before `oldest`."""
        gone = bisect_left(self.tiles, oldest)
        if gone:
            del self.tiles[:gone]
            for values in self.numbers:
                if values is not None:
                    del values[:gone]
            for states in self.states:
                del states[:gone]


class _Place(NamedTuple):
    """Where a cell's columns are among its lane's: so many numbers from `at` on, or the states (numbers 0) of number `at`."""

    at: int
    numbers: int


class TileCodec:
    """Packs and unpacks the records of one view, and merges rows into them."""

    def __init__(self, lanes: Lanes) -> None:
        self._cells = list(dict.fromkeys(cell for lane in lanes.lanes for cell in lane.cells))
        self._forms = [_Form(lane, [self._cells.index(cell) for cell in lane.cells]) for lane in lanes.lanes]

    def empty(self) -> Kept:
        """A record of no rows."""
        return Kept(-(1 << 63), 0, b"", [_Lay(0, 0, (), (), ()) for _ in self._forms])

    def pack(self, kept: Kept) -> bytes:
        """The record as bytes."""
        parts = [HEAD.pack(FORMAT, kept.instant, kept.known)]
        for number, (form, lay) in enumerate(zip(self._forms, kept.lanes, strict=True)):
            if number in kept.open:
                parts.append(form.packed(kept.open[number]))
            else:
                parts.append(kept.record[lay.begin : lay.end] or COUNT.pack(0))
        return b"".join(parts)

    def unpack(self, record: bytes) -> Kept:
        """The record that `pack` wrote."""
        form, instant, known = HEAD.unpack_from(record)
        if form != FORMAT:
            raise OnlineStoreError(f"The online store holds records of format {form}, and this version reads {FORMAT}")
        lanes, at = [], HEAD.size
        for lane in self._forms:
            lay = lane.lay(record, at)
            lanes.append(lay)
            at = lay.end
        return Kept(instant, known, record, lanes)

    def tiles(self, kept: Kept) -> list[LaneTiles]:
        """Every lane's tiles."""
        if kept.open:
            kept = self.unpack(self.pack(kept))
        return [LaneTiles(form, kept.record, lay) for form, lay in zip(self._forms, kept.lanes, strict=True)]

    def add(self, kept: Kept, rows: Sequence[PushedRow]) -> None:
        """Merge rows into a record, each once; its instant is then the newest known_at, and tiles out of reach are gone."""
        kept.known += len(rows)
        kept.instant = max([kept.instant, *(row.known_at for row in rows)])
        lifted = [[cell.lift(row) for cell in self._cells] for row in rows]
        for number, form in enumerate(self._forms):
            columns = kept.open.get(number)
            if columns is None:
                columns = kept.open[number] = form.columns(kept.record, kept.lanes[number])
            form.add(columns, rows, lifted)
            if form.lane.reach is not None:
                columns.trim(form.lane.oldest(kept.instant))

    def subtract(self, kept: Kept, rows: Sequence[PushedRow]) -> None:
        """Take rows out of a record again, which were merged into it; every cell must be additive.

        A tile that is out of reach is gone already, and of one that is there nothing was ever left out.
        """
        kept.known -= len(rows)
        lifted = [[cell.lift(row) for cell in self._cells] for row in rows]
        for number, form in enumerate(self._forms):
            columns = kept.open.get(number)
            if columns is None:
                columns = kept.open[number] = form.columns(kept.record, kept.lanes[number])
            form.subtract(columns, rows, lifted)


class LaneTiles:
    """A lane of one record, from which states are merged without taking the rest apart."""

    __slots__ = ("_form", "_lay", "_record")

    def __init__(self, form: _Form, record: bytes, lay: _Lay) -> None:
        self._form, self._record, self._lay = form, record, lay

    def merged(self, cell: int, first: int | None, last: int | None) -> State:
        """See semantics.lanes.Tiles."""
        form, lay = self._form, self._lay
        tiles = lay.tiles
        low = 0 if first is None else bisect_left(tiles, first)
        high = len(tiles) if last is None else bisect_right(tiles, last)
        algebra, place = form.lane.cells[cell].algebra, form.places[cell]
        if low >= high:
            return algebra.zero
        if place.numbers == 1:
            return form.total(self._record, lay, place.at, low, high)
        if place.numbers:
            head, numbers = lay.head, range(place.at, place.at + place.numbers)
            return tuple([form.total(self._record, lay, n, low, high) if head[2 * n + 1] else 0 for n in numbers])
        states = unpack_runs(form.runs(self._record, lay, place.at))[low:high]
        return form.merges[cell](states)


class _Form:
    """How the tiles of one lane are laid out."""

    def __init__(self, lane: Lane, lifted: Sequence[int]) -> None:
        self.lane = lane
        numbers = others = 0
        self.places: list[_Place] = []
        for cell in lane.cells:
            count = cell.algebra.numbers if isinstance(cell.algebra, Additive) else 0
            self.places.append(_Place(numbers if count else others, count))
            numbers, others = numbers + count, others + (not count)
        self.numbers, self.others = numbers, others
        self.merges = [_merge_of(cell.algebra) for cell in lane.cells]
        self._steps = [
            (cell.algebra, place, own) for cell, place, own in zip(lane.cells, self.places, lifted, strict=True)
        ]
        self._head = struct.Struct("<" + "HH" * numbers + "I" * others)
        self._zeros = [cell.algebra.pack(cell.algebra.zero) for cell, place in zip(lane.cells, self.places, strict=True)
                       if not place.numbers]  # fmt: skip

    def lay(self, record: bytes, begin: int) -> _Lay:
        """How the lane lies in a record."""
        (count,) = COUNT.unpack_from(record, begin)
        at = begin + COUNT.size
        if not count:
            return _Lay(begin, at, (), (), ())
        head = self._head.unpack_from(record, at)
        at += self._head.size
        tiles = _integers("q", count).unpack_from(record, at)
        at += 8 * count
        columns = []
        for width in head[1 : 2 * self.numbers : 2]:
            columns.append(at)
            at += width * count
        for size in head[2 * self.numbers :]:
            columns.append(at)
            at += size
        return _Lay(begin, at, tiles, head, tuple(columns))

    def total(self, record: bytes, lay: _Lay, number: int, low: int, high: int) -> int:
        """The sum of a number's column over the tiles [low, high)."""
        shift, width = lay.head[2 * number : 2 * number + 2]
        at, count, total = lay.columns[number], high - low, 0
        if width <= 8:
            if width:
                total = sum(_integers(SIGNED[width], count).unpack_from(record, at + low * width))
        else:
            for plane in range(width // 8 - 1, -1, -1):
                of = "q" if plane == width // 8 - 1 else "Q"
                values = _integers(of, count).unpack_from(record, at + 8 * (plane * len(lay.tiles) + low))
                total = (total << 64) + sum(values)
        return total << shift

    def runs(self, record: bytes, lay: _Lay, other: int) -> bytes:
        """The packed states of a cell that is not additive."""
        at = lay.columns[self.numbers + other]
        return record[at : at + lay.head[2 * self.numbers + other]]

    def columns(self, record: bytes, lay: _Lay) -> _Columns:
        """The lane taken apart."""
        count = len(lay.tiles)
        if not count:
            return _Columns([], [0] * self.numbers, [None] * self.numbers, [[] for _ in range(self.others)])
        numbers = [_read(record, lay.columns[i], lay.head[2 * i + 1], count) for i in range(self.numbers)]
        states = [unpack_runs(self.runs(record, lay, i)) for i in range(self.others)]
        return _Columns(list(lay.tiles), list(lay.head[: 2 * self.numbers : 2]), numbers, states)

    def add(self, columns: _Columns, rows: Sequence[PushedRow], lifted: Sequence[Sequence[State | None]]) -> None:
        """Merge rows, each into its tile; `lifted` holds the states of each row."""
        if len(rows) == 1:
            self._add_to(columns, self.lane.tile(rows[0].event_time), lifted)
            return
        by_tile: dict[int, list[Sequence[State | None]]] = {}
        for row, states in zip(rows, lifted, strict=True):
            by_tile.setdefault(self.lane.tile(row.event_time), []).append(states)
        for b, its in by_tile.items():
            self._add_to(columns, b, its)

    def _add_to(self, columns: _Columns, b: int, lifted: Sequence[Sequence[State | None]]) -> None:
        tile = bisect_left(columns.tiles, b)
        if tile == len(columns.tiles) or columns.tiles[tile] != b:
            columns.insert(tile, b, self._zeros)
        for algebra, place, own in self._steps:
            several = [states[own] for states in lifted if states[own] is not None]
            if not several:
                continue
            state: State = several[0] if len(several) == 1 else reduce(algebra.merge, several)
            if place.numbers:
                for number, by in enumerate(state if place.numbers > 1 else (state,), place.at):
                    if by:
                        columns.increase(number, tile, by)
            else:
                states = columns.states[place.at]
                if states[tile] != self._zeros[place.at]:
                    state = algebra.merge(algebra.unpack(states[tile]), state)
                states[tile] = algebra.pack(state)

    def subtract(self, columns: _Columns, rows: Sequence[PushedRow], lifted: Sequence[Sequence[State | None]]) -> None:
        """Take rows out, each of its tile where that is still there."""
        for row, states in zip(rows, lifted, strict=True):
            b = self.lane.tile(row.event_time)
            tile = bisect_left(columns.tiles, b)
            if tile == len(columns.tiles) or columns.tiles[tile] != b:
                continue
            for _, place, own in self._steps:
                state = states[own]
                if state is None:
                    continue
                for number, by in enumerate(state if place.numbers > 1 else (state,), place.at):
                    if by:
                        columns.increase(number, tile, -by)

    def packed(self, columns: _Columns) -> bytes:
        """The lane as bytes: equal tiles are equal bytes, whatever the order in which rows came."""
        count = len(columns.tiles)
        if not count:
            return COUNT.pack(0)
        head: list[int] = []
        parts = [b"", _integers("q", count).pack(*columns.tiles)]
        for shift, values in zip(columns.shifts, columns.numbers, strict=True):
            if values is None:
                head += (0, 0)
                continue
            below, width, data = _write(shift, values)
            head += (below, width)
            parts.append(data)
        for states in columns.states:
            runs = pack_runs(states)
            head.append(len(runs))
            parts.append(runs)
        parts[0] = COUNT.pack(count) + self._head.pack(*head)
        return b"".join(parts)


@lru_cache(maxsize=4096)
def _integers(of: str, count: int) -> struct.Struct:
    return struct.Struct(f"<{count}{of}")


def _read(record: bytes, at: int, width: int, count: int) -> list[int] | None:
    if not width:
        return None
    if width <= 8:
        return list(_integers(SIGNED[width], count).unpack_from(record, at))
    planes = width // 8
    values = list(_integers("q", count).unpack_from(record, at + 8 * (planes - 1) * count))
    for plane in range(planes - 2, -1, -1):
        lower = _integers("Q", count).unpack_from(record, at + 8 * plane * count)
        values = [(value << 64) + low for value, low in zip(values, lower, strict=True)]
    return values


def _write(shift: int, values: list[int]) -> tuple[int, int, bytes]:
    """The shift, the width and the bytes of a column of integers over 2^shift: as few bits as hold them all."""
    count = len(values)
    bits = values[0] if count == 1 else reduce(or_, values)
    if not bits:
        return 0, 0, b""
    zeros = (bits & -bits).bit_length() - 1
    if zeros:
        values = [value >> zeros for value in values]
    least, most = (values[0], values[0]) if count == 1 else (min(values), max(values))
    size = (~least if -least > most else most).bit_length() // 8 + 1
    if size <= 8:
        width = WIDTHS[size]
        return shift + zeros, width, _integers(SIGNED[width], count).pack(*values)
    planes = (size + 7) // 8
    lower = (1 << 64) - 1
    parts = []
    for _ in range(planes - 1):
        parts.append(_integers("Q", count).pack(*[value & lower for value in values]))
        values = [value >> 64 for value in values]
    parts.append(_integers("q", count).pack(*values))
    return shift + zeros, 8 * planes, b"".join(parts)


def _merge_of(algebra: Algebra) -> Callable[[Sequence[bytes]], State]:
    """The merge of packed states, oldest first."""
    if isinstance(algebra, Consecutive):
        return algebra.merge_packed
    return lambda states: reduce(algebra.merge, map(algebra.unpack, filter(None, states)), algebra.zero)

"""How a series of tiles lies in a record, and how it is taken apart and packed again.

    series   how many tiles there are (u32); where there are any: for each number its shift and width (u16 each), for each packed
             aggregate how many bytes it has and how long each of its states is (u32 each; the greatest u32 where they differ);
             the start of each tile (i64), oldest first; then the columns
    column   of a number, a tile after the other: integers of `width` bytes (0: all are 0), to be multiplied by 2^shift; those
             wider than 8 bytes as one run of 8 bytes of each, the lowest first. Of a packed aggregate its states, as runs
             where they differ in length

Numbers are little-endian. States lie by column, so that a window's sum is one sum of the end of each of its columns.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_
from typing import NamedTuple

from featurestore.semantics.folds import State
from featurestore.semantics.folds.packing import pack_runs, unpack_runs
from featurestore.tiles.series import Number, TileSeries

HEAD = struct.Struct("<Bqq")
"""What comes before the series: format, instant, rows."""

COUNT = struct.Struct("<I")
UNEVEN = (1 << 32) - 1
"""Stands for the length of states that differ in length."""

CODES = {1: "b", 2: "h", 4: "i", 8: "q"}
WIDTHS = (0, 1, 2, 4, 4, 8, 8, 8, 8)
"""The width of a column by the bytes that its widest number needs."""

WORD = 8
LOW = (1 << 64) - 1


class SeriesLayout(NamedTuple):
    """Where a series lies in a record."""

    end: int
    """The byte after it."""

    tiles: int
    """How many there are."""

    head: tuple[int, ...]
    """Shift and width of each number, then size and step of each packed aggregate."""

    body: tuple[int, ...]
    """The starts of the tiles, then the columns of the numbers."""

    starts: tuple[int, ...]
    """At which integer of `body` each number's column begins."""

    others: tuple[int, ...]
    """At which byte of the record each packed aggregate begins."""


@dataclass(slots=True)
class SeriesColumns:
    """A series taken apart, so that rows can be merged into it."""

    tiles: list[int]
    """The starts of the tiles (µs), in order."""

    shifts: dict[int, int]
    """Of each number that is not 0 in all tiles: the power of two by which its integers are to be multiplied."""

    numbers: dict[int, list[int]]
    """The integers of these, one a tile."""

    states: list[list[bytes]]
    """Of each packed aggregate the states, one a tile; b"" for none."""

    def find(self, start: int) -> int | None:
        """The number of a tile; None where there is none."""
        tile = bisect_left(self.tiles, start)
        return tile if tile < len(self.tiles) and self.tiles[tile] == start else None

    def found(self, start: int) -> int:
        """The number of a tile, which is made without rows where there is none."""
        tiles = self.tiles
        tile = bisect_left(tiles, start)
        if tile == len(tiles) or tiles[tile] != start:
            tiles.insert(tile, start)
            for values in self.numbers.values():
                values.insert(tile, 0)
            for states in self.states:
                states.insert(tile, b"")
        return tile

    def increase(self, tile: int, shares: Sequence[tuple[int, int, int]], columns: Sequence[int | None]) -> None:
        """Add to the numbers of a tile: each share a name, an odd integer and a power of two; `columns`: those of the names."""
        for name, odd, zeros in shares:
            number = columns[name]
            if number is None:
                continue
            values = self.numbers.get(number)
            if values is None:
                values = self.numbers[number] = [0] * len(self.tiles)
                shift = self.shifts[number] = zeros
            else:
                shift = self.shifts[number]
                if zeros < shift:
                    values[:] = [value << (shift - zeros) for value in values]
                    shift = self.shifts[number] = zeros
            values[tile] += odd << (zeros - shift)

    def trim(self, oldest: int) -> None:
        """Forget the tiles before `oldest`."""
        gone = bisect_left(self.tiles, oldest)
        if gone:
            del self.tiles[:gone]
            for values in self.numbers.values():
                del values[:gone]
            for states in self.states:
                del states[:gone]


class AggregateColumns(NamedTuple):
    """Which columns of its series are an aggregate's."""

    numbers: tuple[int, ...]
    """The columns of its numbers."""

    other: int
    """The column of its packed states; -1: it has numbers."""


class TileFormat:
    """How the tiles of one series are laid out."""

    def __init__(self, series: TileSeries) -> None:
        self.series = series
        self.aggregate_columns: list[AggregateColumns] = []
        columns: dict[Number, int] = {}
        self.others = 0
        for aggregate in series.aggregates:
            numbers = tuple([columns.setdefault(number, len(columns)) for number in aggregate.numbers])
            self.aggregate_columns.append(AggregateColumns(numbers, -1 if numbers else self.others))
            self.others += not numbers
        self.numbers, self.names = len(columns), tuple(columns)
        self.merges = [aggregate.algebra.merge_packed for aggregate in series.aggregates]
        self.head = struct.Struct("<" + "HH" * self.numbers + "II" * self.others)

    def layout(self, record: bytes, begin: int) -> SeriesLayout:
        """How the series lies in a record."""
        (count,) = COUNT.unpack_from(record, begin)
        at = begin + COUNT.size
        if not count:
            return SeriesLayout(at, 0, (), (), (), ())
        head = self.head.unpack_from(record, at)
        at += self.head.size
        of, starts = _body(count, head[1 : 2 * self.numbers : 2])
        body = of.unpack_from(record, at)
        at += of.size
        others = []
        for size in head[2 * self.numbers :: 2]:
            others.append(at)
            at += size
        return SeriesLayout(at, count, head, body, starts, tuple(others))

    def merged(
        self, record: bytes, layout: SeriesLayout, first: int | None, last: int | None, aggregates: Sequence[int]
    ) -> list[State]:
        """The state of each of some aggregates, over the tiles that start from `first` through `last` (µs; None: no bound)."""
        low = 0 if first is None else bisect_left(layout.body, first, 0, layout.tiles)
        high = layout.tiles if last is None else bisect_right(layout.body, last, 0, layout.tiles)
        totals: dict[int, int] = {}
        found: list[State] = []
        for aggregate in aggregates:
            numbers, other = self.aggregate_columns[aggregate]
            if not numbers:
                found.append(self.merges[aggregate](self.states(record, layout, other, low, high)))
                continue
            for number in numbers:
                if number not in totals:
                    totals[number] = self.total(layout, number, low, high)
            found.append(totals[numbers[0]] if len(numbers) == 1 else tuple([totals[number] for number in numbers]))
        return found

    def total(self, layout: SeriesLayout, number: int, low: int, high: int) -> int:
        """The sum of a number's column over the tiles [low, high)."""
        if low >= high:
            return 0
        shift, width = layout.head[2 * number : 2 * number + 2]
        if not width:
            return 0
        start = layout.starts[number]
        if width <= WORD:
            return sum(layout.body[start + low : start + high]) << shift
        count, total = layout.tiles, 0
        for plane in range(width // WORD - 1, -1, -1):
            total = (total << 64) + sum(layout.body[start + plane * count + low : start + plane * count + high])
        return total << shift

    def states(self, record: bytes, layout: SeriesLayout, other: int, low: int, high: int) -> Sequence[bytes]:
        """The packed states of an aggregate that is not additive, of the tiles [low, high)."""
        if low >= high:
            return []
        at = layout.others[other]
        size, step = layout.head[2 * (self.numbers + other) : 2 * (self.numbers + other) + 2]
        if step == UNEVEN:
            return unpack_runs(record[at : at + size])[low:high]
        if not step:
            return [b""] * (high - low)
        return even_states(high - low, step).unpack_from(record, at + low * step)

    def columns(self, record: bytes, layout: SeriesLayout) -> SeriesColumns:
        """The series taken apart."""
        count, head = layout.tiles, layout.head
        if not count:
            return SeriesColumns([], {}, {}, [[] for _ in range(self.others)])
        shifts, numbers = {}, {}
        for number, width in enumerate(head[1 : 2 * self.numbers : 2]):
            if width:
                shifts[number] = head[2 * number]
                numbers[number] = _joined(layout, number, width)
        return SeriesColumns(
            list(layout.body[:count]),
            shifts,
            numbers,
            [list(self.states(record, layout, i, 0, count)) for i in range(self.others)],
        )

    def packed(self, columns: SeriesColumns) -> bytes:
        """The series as bytes: equal tiles are equal bytes, whatever the order in which rows came."""
        count = len(columns.tiles)
        if not count:
            return COUNT.pack(0)
        head, body, parts = [0] * (2 * self.numbers), columns.tiles.copy(), [b""]
        for number in range(self.numbers):
            if number in columns.numbers:
                head[2 * number : 2 * number + 2] = _narrowed(columns.shifts[number], columns.numbers[number], body)
        of, _ = _body(count, tuple(head[1::2]))
        for states in columns.states:
            step = len(states[0])
            if any(len(state) != step for state in states):
                step = UNEVEN
            parts.append(states[0] if count == 1 else pack_runs(states) if step == UNEVEN else b"".join(states))
            head += (len(parts[-1]), step)
        parts[0] = COUNT.pack(count) + self.head.pack(*head) + of.pack(*body)
        return b"".join(parts)


@lru_cache(maxsize=1 << 14)
def _body(count: int, widths: tuple[int, ...]) -> tuple[struct.Struct, tuple[int, ...]]:
    """The tiles and the columns of numbers of a series, and at which of its integers each column starts."""
    codes, starts, at = [f"<{count}q"], [], count
    for width in widths:
        starts.append(at)
        planes = max(width // 8, 1) if width else 0
        at += planes * count
        if planes:
            codes.append(f"{(planes - 1) * count}Q{count}{CODES[min(width, WORD)]}")
    return struct.Struct("".join(codes)), tuple(starts)


@lru_cache(maxsize=1 << 10)
def even_states(count: int, step: int) -> struct.Struct:
    """So many states of so many bytes each; 3.7 × as fast as cut one by one, of 28 tiles (`benchmarks fast-paths`)."""
    return struct.Struct(f"{step}s" * count)


def _joined(layout: SeriesLayout, number: int, width: int) -> list[int]:
    """The integers of a column."""
    start, count = layout.starts[number], layout.tiles
    if width <= WORD:
        return list(layout.body[start : start + count])
    end = start + width // WORD * count
    values = list(layout.body[end - count : end])
    for at in range(end - 2 * count, start - 1, -count):
        values = [(value << 64) + low for value, low in zip(values, layout.body[at : at + count], strict=True)]
    return values


def _narrowed(shift: int, values: list[int], body: list[int]) -> tuple[int, int]:
    """The shift and the width of a column of integers over 2^shift, as few bits as hold them all; appends it to `body`."""
    bits = values[0] if len(values) == 1 else reduce(or_, values)
    if not bits:
        return 0, 0
    if not bits & 1:
        zeros = (bits & -bits).bit_length() - 1
        values, bits, shift = [value >> zeros for value in values], bits >> zeros, shift + zeros
    if bits < 0:  # some are negative, and as many bits as the greatest and the least need are not those of all together
        bits = max(*values, ~min(values))
    size = bits.bit_length() // 8 + 1
    if size <= WORD:
        body += values
        return shift, WIDTHS[size]
    planes = (size + 7) // WORD
    for _ in range(planes - 1):
        body += [value & LOW for value in values]
        values = [value >> 64 for value in values]
    body += values
    return shift, WORD * planes

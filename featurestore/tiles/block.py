"""Decodes the tiles of many records at once with numpy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.semantics.folds import State
from featurestore.semantics.folds.packing import unpack_runs
from featurestore.tiles.layout import COUNT, HEAD, UNEVEN, TileFormat
from featurestore.tiles.series import TileRange

Ints = npt.NDArray[np.int64]
WORD = 8
HALF = 32
MASK = (1 << HALF) - 1
DTYPES = ("<u8", "<i1", "<i2", "<i4", "<i8")
UNSIGNED = 0
SIGNED = np.array([0, 1, 2, 0, 3, 0, 0, 0, 4])
"""The dtype of a number by its width, by its number among DTYPES; lower planes of wide numbers are UNSIGNED."""


class TileBlock:
    """The tiles of many records of one view; see TileReader."""

    def __init__(self, formats: Sequence[TileFormat], records: Sequence[bytes]) -> None:
        spare = max(8, *[each.head.size for each in formats])  # so that a head or eight bytes may be read anywhere
        self._records = len(records)
        self.bytes = b"".join([*records, bytes(spare)])
        sizes = np.array([len(record) for record in records])
        at = np.cumsum(sizes) - sizes
        self.instants: list[int] = self.view("<i8")[at + 1].tolist()
        self.rows: list[int] = self.view("<i8")[at + 9].tolist()
        at += HEAD.size
        self._series = []
        for tile_format in formats:
            series = _SeriesBlock(tile_format, self, at)
            self._series.append(series)
            at = series.end

    def view(self, dtype: str) -> npt.NDArray[Any]:
        """The item of this type that begins at each byte."""
        of = np.dtype(dtype)
        return np.ndarray(len(self.bytes) - of.itemsize + 1, of, self.bytes, strides=(1,))

    def merged(self, ranges: Sequence[TileRange]) -> list[Sequence[State]]:
        """See TileReader."""
        windows = [(series := self._series[each.series], *series.within(each.first, each.last)) for each in ranges]
        found: list[Sequence[State]] = []
        for each, (series, low, high), totals in zip(ranges, windows, self._totals(windows), strict=True):
            for aggregate in each.aggregates:
                columns = [totals[number] for number in series.format.aggregate_columns[aggregate].numbers]
                if columns:
                    found.append(columns[0] if len(columns) == 1 else list(zip(*columns, strict=True)))
                else:
                    found.append(self._states(series, aggregate, low, high))
        return found

    def _totals(self, windows: Sequence[tuple[_SeriesBlock, Ints, Ints]]) -> list[list[list[int]]]:
        """For each window of a series, the tiles [low, high) of each record, the sums of each of its numbers."""
        ends = list(accumulate([series.format.numbers for series, _, _ in windows], initial=0))
        pieces = [series.pieces(low, high, end) for (series, low, high), end in zip(windows, ends, strict=False)]
        piece = _Pieces(*[np.concatenate(each) for each in zip(*pieces, strict=True)])
        totals = [[0] * self._records for _ in range(ends[-1])]
        for dtype in np.unique(piece.dtype).tolist():
            some = _Pieces(*[each[piece.dtype == dtype] for each in piece])
            items = self.view(DTYPES[dtype])
            values = items[_places(some.at, items.itemsize, some.items)]
            sums = _sums(values, np.cumsum(some.items) - some.items)
            for column, record, shift, total in zip(
                *[each.tolist() for each in (some.column, some.record, some.shift)], sums, strict=True
            ):
                totals[column][record] += total << shift
        return [totals[first:end] for first, end in pairwise(ends)]

    def _states(self, series: _SeriesBlock, aggregate: int, low: Ints, high: Ints) -> list[State]:
        """The states of an aggregate that is not additive, over the tiles [low, high) of each record."""
        algebra = series.format.series.aggregates[aggregate].algebra
        other = series.format.aggregate_columns[aggregate].other
        merge, states = series.format.merges[aggregate], [algebra.zero] * self._records
        at, size, steps = series.others[:, other], series.sizes[:, other], series.steps[:, other]
        some = (high > low) & (steps > 0)
        for step in {*steps[some].tolist()}:
            chosen = np.flatnonzero(some & (steps == step))
            first, last, begin = low[chosen], high[chosen], at[chosen]
            if step == UNEVEN:
                runs = [
                    unpack_runs(self.bytes[i : i + n])
                    for i, n in zip(begin.tolist(), size[chosen].tolist(), strict=True)
                ]
                found = [merge(each[i:j]) for each, i, j in zip(runs, first.tolist(), last.tolist(), strict=True)]
            elif algebra.decisive is not None:
                ends = begin + step * (last - 1 if algebra.decisive == "newest" else first)
                found = [algebra.unpack(self.bytes[i : i + step]) for i in ends.tolist()]
            elif algebra.extreme is not None and step <= WORD + 1:
                words = self._extremes(algebra.extreme, step, begin + step * first, last - first)
                found = list(map(algebra.unpack, words))
            else:
                ends = begin + step * last
                found = [
                    merge([self.bytes[k : k + step] for k in range(i, j, step)])
                    for i, j in zip((begin + step * first).tolist(), ends.tolist(), strict=True)
                ]
            for record, state in zip(chosen.tolist(), found, strict=True):
                states[record] = state
        return states

    def _extremes(self, extreme: Literal["greatest", "least"], step: int, at: Ints, count: Ints) -> list[bytes]:
        """The greatest or the least of each run of states, at most nine bytes each, of which the first is always the same."""
        words = self.view(">u8")[_places(at + (step - WORD), step, count)].astype(np.uint64)
        words &= np.uint64((1 << (8 * (step - 1))) - 1)
        best = (np.maximum if extreme == "greatest" else np.minimum).reduceat(words, np.cumsum(count) - count)
        return [b"\x01" + word.to_bytes(step - 1, "big") for word in best.tolist()]


class _Pieces(NamedTuple):
    """Runs of neighbouring integers that are to be summed, an entry a run."""

    column: Ints
    """For which column."""

    record: Ints
    """Of which record."""

    at: Ints
    """At which byte it begins."""

    items: Ints
    """How many integers it has."""

    dtype: Ints
    """Of which type they are: a number among DTYPES."""

    shift: Ints
    """By how many bits the sum is to be shifted."""


class _SeriesBlock:
    """One series of every record: how many tiles each has, where its columns begin, and what its head says."""

    def __init__(self, tile_format: TileFormat, block: TileBlock, at: Ints) -> None:
        self.format = tile_format
        self.count = block.view("<u4")[at].astype(np.int64)
        used = self.count > 0
        at = at + COUNT.size
        size, numbers = tile_format.head.size, tile_format.numbers
        heads = np.ndarray((len(block.bytes) - size + 1, size), np.uint8, block.bytes, strides=(1, 1))[at]
        heads[~used] = 0
        ofnumbers = heads[:, : 4 * numbers].copy().view("<u2").astype(np.int64)
        others = heads[:, 4 * numbers :].copy().view("<u4").astype(np.int64)
        self.shift, self.width = ofnumbers[:, ::2], ofnumbers[:, 1::2]
        self.sizes, self.steps = others[:, ::2], others[:, 1::2]
        at = at + np.where(used, size, 0)
        self.tiles = block.view("<i8")[_places(at, 8, self.count)]
        lengths = np.concatenate([8 * self.count[:, None], self.width * self.count[:, None], self.sizes], axis=1)
        ends = at[:, None] + np.cumsum(lengths, axis=1)
        self.numbers, self.others = ends[:, :numbers], ends[:, numbers:-1]
        self.end = ends[:, -1]
        self._owner = np.repeat(np.arange(len(self.count)), self.count)

    def within(self, first: int | None, last: int | None) -> tuple[Ints, Ints]:
        """In each record the number of the first tile that starts at `first` or later, and of the first that starts after `last`."""
        low = np.zeros_like(self.count) if first is None else self._flagged(self.tiles < first)
        return low, self.count if last is None else self._flagged(self.tiles <= last)

    def _flagged(self, flags: npt.NDArray[np.bool_]) -> Ints:
        """How many of the tiles of each record are flagged."""
        return np.bincount(self._owner[flags], minlength=len(self.count))

    def pieces(self, low: Ints, high: Ints, column_of_first: int) -> _Pieces:
        """What is to be summed for the tiles [low, high) of each record, planes of wide numbers one by one."""
        record, column = np.nonzero((self.width > 0) & (high > low)[:, None])
        width = self.width[record, column]
        planes = np.maximum(width >> 3, 1)
        each = np.repeat(np.arange(len(record)), planes)
        plane = np.arange(len(each)) - np.repeat(np.cumsum(planes) - planes, planes)
        record, column, width = record[each], column[each], np.minimum(width, WORD)[each]
        at = self.numbers[record, column] + WORD * plane * self.count[record] + width * low[record]
        dtype = np.where(plane + 1 < planes[each], UNSIGNED, SIGNED[width])
        shift = self.shift[record, column] + 64 * plane
        return _Pieces(column + column_of_first, record, at, (high - low)[record], dtype, shift)


def _sums(values: npt.NDArray[Any], starts: Ints) -> list[int]:
    """The exact sum of each run, which a half of each integer cannot overflow."""
    if values.itemsize < WORD:
        sums: list[int] = np.add.reduceat(values, starts, dtype=np.int64).tolist()
        return sums
    low, high = np.add.reduceat(values & MASK, starts), np.add.reduceat(values >> HALF, starts)
    return [(above << HALF) + below for above, below in zip(high.tolist(), low.tolist(), strict=True)]


def _places(at: Ints, step: int, count: Ints) -> Ints:
    """Where each item is of runs that begin at `at`, their items `step` bytes apart."""
    before = np.cumsum(count) - count
    return np.repeat(at - step * before, count) + step * np.arange(int(count.sum()))

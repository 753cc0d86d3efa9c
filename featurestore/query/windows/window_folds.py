"""A column's rows within a window, folded for many requests at once, each in at most log n steps.

Sums are differences of prefix sums of exact integers; extremes climb a tree of pairs; every fold without a columnar form
merges its states along a tree. What is prepared of a column's rows serves every window, and what a window adds up to every
fold of the column.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from featurestore.lazy import pa
from featurestore.query.windows.addends import GREATEST, Addends
from featurestore.query.windows.filtered_rows import Bits, FilteredRows, Ints, picked_places
from featurestore.query.windows.ranges import Range
from featurestore.semantics.folds import Algebra, FoldColumn, PartialSums, State, SumField
from featurestore.semantics.folds.limbs import Limbs
from featurestore.semantics.status import Status
from featurestore.semantics.values import scalars
from featurestore.types import FeatureType


class FilteredColumn:
    """One column under one condition, as folds read it; those of the same column and condition share it."""

    def __init__(self, values: pa.Array, rows: Sequence[FilteredRows], addends: Addends) -> None:
        self.values = values
        """By place."""

        self.rows = rows
        """The rows that count, a part for each run."""

        self.addends = addends
        """What each row adds to partial sums."""

        self._prefixes: dict[tuple[SumField | None, int], Ints] = {}
        self._minima: dict[tuple[SumField, int], list[Ints]] = {}
        self._states: dict[tuple[Algebra, int], list[list[State]]] = {}

    def prefix_sums(self, field: SumField | None, digits: Ints, run: int) -> Ints:
        """int64[L, n + 1] of a run's rows: what the first 0, 1, … n of `digits`, int64[L, places], add up to."""
        if (field, run) not in self._prefixes:
            own = self.rows[run].select(digits)
            prefix = self._prefixes[field, run] = np.zeros((len(own), own.shape[1] + 1), np.int64)
            np.cumsum(own, axis=1, out=prefix[:, 1:])
        return self._prefixes[field, run]

    def minima(self, field: SumField, codes: Ints, run: int) -> list[Ints]:
        """The levels of a tree of minima over a run's rows, of codes by place."""
        if (field, run) not in self._minima:
            self._minima[field, run] = _levels(self.rows[run].select(codes))
        return self._minima[field, run]

    def states(self, algebra: Algebra, run: int) -> list[list[State]]:
        """The levels of a tree of merged states over a run's rows."""
        if (algebra, run) not in self._states:
            places = self.rows[run].places
            values = scalars(self.values.take(pa.array(places)))
            levels = [list(map(algebra.lift, values, places.tolist()))]
            while len(levels[-1]) > 1:
                below = levels[-1]
                pairs = [algebra.merge(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
                levels.append(pairs + ([below[-1]] if len(below) % 2 else []))
            self._states[algebra, run] = levels
        return self._states[algebra, run]


class WindowedRows:
    """The part of a column's rows that a window lets through, for each request."""

    def __init__(self, column: FilteredColumn, of_runs: Sequence[Range]) -> None:
        self.column = column
        self.ranges = [rows.range(within) for rows, within in zip(column.rows, of_runs, strict=True)]
        """Of each of the column's runs."""

    @property
    def some(self) -> Bits:
        """Whether there are any, of each request."""
        some: Bits = np.logical_or.reduce([within.high > within.low for within in self.ranges])
        return some

    # What they add up to, each made once for all folds.

    def partial_sums(self, fields: Sequence[SumField]) -> PartialSums:
        """What they add up to, of these fields."""
        made = {field: getattr(self, field) for field in fields}
        decode = self.column.addends.decode if {"least", "greatest"} & {*fields} else None
        return PartialSums(self.values, decode=decode, **made)

    @cached_property
    def values(self) -> Ints:
        """See PartialSums."""
        counts = self.column.addends.counts
        values: Ints = np.add.reduce([within.high - within.low for within in self.ranges])
        return values if counts is None else self._sums(None, counts[np.newaxis])[0]

    @cached_property
    def sums(self) -> Limbs:
        """See PartialSums."""
        limbs = self.column.addends.sums
        return Limbs(limbs.base, self._sums("sums", limbs.digits))

    @cached_property
    def squares(self) -> Limbs:
        """See PartialSums."""
        limbs = self.column.addends.squares
        return Limbs(limbs.base, self._sums("squares", limbs.digits))

    @cached_property
    def special(self) -> Ints | None:
        """See PartialSums."""
        marks = self.column.addends.special
        return None if marks is None else self._sums("special", marks)

    @cached_property
    def least(self) -> Ints:
        """See PartialSums."""
        return self._least("least", self.column.addends.least)

    @cached_property
    def greatest(self) -> Ints:
        """See PartialSums."""
        return self._least("greatest", self.column.addends.greatest)

    def _sums(self, field: SumField | None, digits: Ints) -> Ints:
        """Additions may wrap around on the way: the differences are right as long as they themselves fit."""
        total = np.zeros((len(digits), len(self.ranges[0].low)), np.int64)
        for run, within in enumerate(self.ranges):
            prefix = self.column.prefix_sums(field, digits, run)
            total += prefix[:, within.high] - prefix[:, within.low]
        return total

    def _least(self, field: SumField, codes: Ints) -> Ints:
        best = np.full(len(self.ranges[0].low), GREATEST, np.int64)
        for run, within in enumerate(self.ranges):
            best = np.minimum(best, _climb(self.column.minima(field, codes, run), within))
        return best

    # The other folds.

    def picked(self, end: Literal["newest", "oldest"], count: int) -> Ints:
        """The places of the `count` newest or oldest of them, int64[requests, count], the outermost first, -1 where there are
        fewer."""
        return picked_places(self.column.rows, self.ranges, end, count)

    def merged(self, algebra: Algebra, of: FeatureType) -> FoldColumn:
        """A fold of type `of` by its own algebra: states are merged along a tree, once for each range of rows."""
        trees = [self.column.states(algebra, run) for run in range(len(self.ranges))]
        bounds = np.stack([edge for within in self.ranges for edge in within], axis=1)
        distinct, inverse = np.unique(bounds, axis=0, return_inverse=True)
        states = [_merged_state(algebra, trees, row) for row in distinct.tolist()]
        values, statuses = algebra.finish_many(states)
        overflow = np.array(statuses, np.uint8) == Status.OVERFLOW
        picked = [algebra.picked(state) for state in states]
        places = np.full((len(states), max(map(len, picked), default=0)), -1, np.int64)
        for number, row in enumerate(picked):
            places[number, : len(row)] = row
        return FoldColumn(
            pa.array(values, of.arrow).take(pa.array(inverse)),
            overflow[inverse],
            places[inverse] if places.size else None,
        )


def _levels(codes: Ints) -> list[Ints]:
    levels = [codes]
    while len(levels[-1]) > 1:
        below = levels[-1]
        even = len(below) // 2 * 2
        levels.append(np.concatenate([np.minimum(below[0:even:2], below[1:even:2]), below[even:]]))
    return levels


def _climb(levels: Sequence[Ints], within: Range) -> Ints:
    """The least code of each range, GREATEST where the range is empty: from both ends up the tree, a level a step."""
    low, high = within.low.copy(), within.high.copy()
    result = np.full(len(low), GREATEST, np.int64)
    for level in levels:
        active = low < high
        if not active.any():
            break
        left = np.flatnonzero(active & (low & 1 == 1))
        result[left] = np.minimum(result[left], level[low[left]])
        low[left] += 1
        right = np.flatnonzero((low < high) & (high & 1 == 1))
        high[right] -= 1
        result[right] = np.minimum(result[right], level[high[right]])
        low >>= 1
        high >>= 1
    return result


def _merged_state(algebra: Algebra, trees: Sequence[list[list[State]]], bounds: Sequence[int]) -> State:
    """The state of a range of each tree's rows, as (low, high, low, high, …)."""
    state = algebra.zero
    for run, levels in enumerate(trees):
        low, high = bounds[2 * run], bounds[2 * run + 1]
        for level in levels:
            if low >= high:
                break
            if low & 1:
                state, low = algebra.merge(state, level[low]), low + 1
            if high & 1:
                high -= 1
                state = algebra.merge(state, level[high])
            low, high = low >> 1, high >> 1
    return state

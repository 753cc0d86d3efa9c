"""A column's rows along the chains, and folds of ranges of them, each in at most log n steps a request.

A *strand* is what is left of a chain where a fold's condition holds (and, for folds that skip nulls, the column is not
null). Sums are differences of prefix sums of exact integers; extremes climb a tree of pairs; the newest and the oldest rows are
the ends of ranges; every other fold merges the states along a tree. A fold over several strands merges what each gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.query.windows.ranges import MonotoneRun, Range
from featurestore.semantics.folds import Algebra
from featurestore.semantics.values import scalars
from featurestore.types import FeatureType

__all__ = ["FilteredRows", "FoldInput", "climb", "newest", "oldest"]

FEW = 2
"""Requests whose ranges are sooner added up than all prefixes are, however many features ask for them."""

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
T = TypeVar("T")


@dataclass(frozen=True)
class FilteredRows:
    """The places of the rows of a chain that a fold counts; `before` turns a chain's range into the strand's."""

    places: Ints
    before: Ints | None

    @classmethod
    def of(cls, chain: MonotoneRun, counted: Bits | None) -> FilteredRows:
        """The chain's rows where `counted` (by place) holds; all of them without it."""
        if counted is None:
            return cls(chain.places, None)
        here = counted[chain.places]
        if here.all():
            return cls(chain.places, None)
        return cls(chain.places[here], np.concatenate([[0], np.cumsum(here)]))

    def range(self, of_chain: Range) -> Range:
        """The strand's part of a range of its chain."""
        return of_chain if self.before is None else Range(self.before[of_chain.low], self.before[of_chain.high])


@dataclass
class FoldInput:
    """One column's values by place, and its strands for one condition; what folds prepare of them is kept.

    Folds that read the same column under the same condition share one of these. counts: how many values each place stands
    for, where that is not one.
    """

    values: pa.Array
    of: FeatureType
    strands: list[FilteredRows]
    counts: Ints | None = None
    _kept: dict[Any, Any] = field(default_factory=dict)

    def keep(self, what: Any, make: Callable[[], T]) -> T:
        """What `make` gives, made once."""
        if what not in self._kept:
            self._kept[what] = make()
        kept: T = self._kept[what]
        return kept

    def sums(self, what: str, digits: Ints, ranges: Sequence[Range]) -> Ints:
        """The exact sums of integers, int64[rows of `digits`, requests]; `digits` by place, named `what`.

        Additions may wrap around on the way: the differences are right as long as they themselves fit.
        """
        total = np.zeros((len(digits), len(ranges[0].low) if ranges else 0), np.int64)
        for number, (strand, part) in enumerate(zip(self.strands, ranges, strict=True)):
            for row, digit in enumerate(digits):
                if len(part.low) <= FEW:
                    total[row] += _sums(digit, strand.places, part)
                    continue
                prefix = self.keep((what, number, row), lambda d=digit, s=strand: _prefix(d, s.places))  # type: ignore[misc]
                total[row] += prefix[part.high] - prefix[part.low]
        return total

    def tree(self, what: str, codes: Ints, number: int) -> list[Ints]:
        """The levels of a tree of minima over a strand's codes; `codes` by place, named `what`."""
        return self.keep((what, number, "tree"), lambda: _levels(codes[self.strands[number].places], np.minimum))

    def states(self, algebra: Algebra, name: Any, number: int) -> list[list[Any]]:
        """The levels of a tree of states over a strand."""
        return self.keep((name, number, "states"), lambda: self._states(algebra, self.strands[number].places))

    def _states(self, algebra: Algebra, places: Ints) -> list[list[Any]]:
        values = scalars(self.values.take(pa.array(places)))
        levels = [list(map(algebra.lift, values, places.tolist()))]
        while len(levels[-1]) > 1:
            below = levels[-1]
            pairs = [algebra.merge(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
            levels.append(pairs + ([below[-1]] if len(below) % 2 else []))
        return levels


def _sums(digits: Ints, places: Ints, part: Range) -> list[int]:
    """The sum of each range, added up."""
    ends = zip(part.low.tolist(), part.high.tolist(), strict=True)
    whole = len(places) == len(digits)
    return [(digits[low:high] if whole else digits[places[low:high]]).sum() for low, high in ends]


def _prefix(digits: Ints, places: Ints) -> Ints:
    prefix = np.zeros(len(places) + 1, np.int64)
    np.cumsum(digits if len(places) == len(digits) else digits[places], out=prefix[1:])
    return prefix


def _levels(codes: Ints, merge: Callable[[Ints, Ints], Ints]) -> list[Ints]:
    levels = [codes]
    while len(levels[-1]) > 1:
        below = levels[-1]
        even = len(below) // 2 * 2
        pairs = merge(below[0:even:2], below[1:even:2])
        levels.append(np.concatenate([pairs, below[even:]]))
    return levels


def climb(levels: Sequence[Ints], part: Range, *, empty: int) -> Ints:
    """The least code of each range, `empty` where the range is: from both ends up the tree, a level a step."""
    low, high = part.low.copy(), part.high.copy()
    result = np.full(len(low), empty, np.int64)
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


def newest(strands: Sequence[FilteredRows], ranges: Sequence[Range], count: int) -> Ints:
    """The places of the `count` newest rows of each request, int64[requests, count], newest first, -1 where there are fewer."""
    found = []
    for strand, part in zip(strands, ranges, strict=True):
        for back in range(1, count + 1):
            there = part.high - back >= part.low
            found.append(np.where(there, strand.places[np.maximum(part.high - back, 0)], -1) if len(strand.places) else
                         np.full(len(part.low), -1))  # fmt: skip
    places = np.stack(found, axis=1)
    if len(strands) > 1:
        places = -np.sort(-places, axis=1)
    return places[:, :count]


def oldest(strands: Sequence[FilteredRows], ranges: Sequence[Range]) -> Ints:
    """The place of the oldest row of each request, -1 where there is none."""
    none = np.iinfo(np.int64).max
    result = np.full(len(ranges[0].low), none, np.int64)
    for strand, part in zip(strands, ranges, strict=True):
        if len(strand.places):
            first = strand.places[np.minimum(part.low, len(strand.places) - 1)]
            result = np.minimum(result, np.where(part.low < part.high, first, none))
    return np.where(result == none, -1, result)


def take(values: pa.Array, places: Ints) -> pa.Array:
    """The values at the places, null for -1."""
    return pc.take(values, pa.array(places, mask=places < 0))

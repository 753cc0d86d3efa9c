"""Numbers of a column in their order, and what they tell: of one column, or of several at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa
from featurestore.statistics.column_counts import NumberCounts, odd_counts
from featurestore.statistics.column_statistics import NumberStatistics
from featurestore.statistics.column_values import Numbers, as_numbers, finite_of, plain_number
from featurestore.statistics.frequent import FrequentNumbers
from featurestore.statistics.histogram import Bucket, EqualWidth, Histogram, with_infinities
from featurestore.statistics.moments import QuickMoments, are_plain
from featurestore.statistics.quantiles import Quantiles
from featurestore.types import FeatureType

FEW_PER_VALUE = 4
"""Whole numbers are counted by their distance from the least where that is at most so many times as many as there are: a tenth of the
time of sorting."""

FEW_SORTED = 2_048
"""Numbers that are sorted as quickly."""

Times = npt.NDArray[np.int64] | None
"""How often each number is there; None: once."""


class OrderedNumbers(NamedTuple):
    """Numbers, once each.

    size: how many are finite; values: the different ones of these, from the least to the greatest; times: how often each is there; odd:
    see `odd_counts`; finite: the finite ones as they came, or what is counted of all; repeated: the finite ones in their order, each as often
    as it is there, None: they were never laid out so.
    """

    size: int
    values: Numbers
    times: Times
    odd: tuple[int, int, int]
    finite: Numbers | NumberCounts
    repeated: Numbers | None = None

    @classmethod
    def of(cls, values: pa.Array, of: FeatureType) -> OrderedNumbers:
        """The numbers of a column without nulls."""
        if of.kind == "Bool":
            true, false = values.true_count, values.false_count
            there = [(number, count) for number, count in ((0, false), (1, true)) if count]
            numbers, times = np.array(there, np.int64).reshape(-1, 2).T
            return cls(len(values), numbers, times, (0, 0, 0), NumberCounts.of_truths(true, false))
        return cls.of_numbers(as_numbers(values, of))

    @classmethod
    def of_numbers(cls, numbers: Numbers) -> OrderedNumbers:
        """Those of an array."""
        finite = finite_of(numbers)
        odd = (0, 0, 0) if len(finite) == len(numbers) else odd_counts(numbers)
        counted = _counted_near(finite)
        if counted is not None:
            return cls(len(finite), *counted, odd, finite)
        ordered = np.sort(finite)
        if ordered.dtype.kind == "f" and len(ordered) and ordered[0] <= 0 <= ordered[-1]:
            ordered += 0.0  # of two zeros the one without a sign
        are_new = np.ones(len(ordered), np.bool_)
        np.not_equal(ordered[1:], ordered[:-1], out=are_new[1:])
        unique = int(np.count_nonzero(are_new))
        return cls(len(finite), *_once(ordered, are_new, unique), odd, finite, ordered)

    @classmethod
    def of_several(cls, columns: Sequence[Numbers]) -> list[OrderedNumbers]:
        """Those of each of several arrays of one type and length: the same as of each by itself, in fewer calls."""
        count = len(columns[0])
        if len(columns) == 1 or not count:
            return [cls.of_numbers(column) for column in columns]
        matrix = np.stack(columns)
        ordered = np.sort(matrix, axis=1)
        least, greatest = ordered[:, 0].astype(np.float64), ordered[:, -1].astype(np.float64)
        together = are_plain(least) & are_plain(greatest)
        if not together.all():
            left = iter(
                cls.of_several([column for column, plain in zip(columns, together, strict=True) if plain])
                if together.any()
                else ()
            )
            return [
                next(left) if plain else cls.of_numbers(column) for column, plain in zip(columns, together, strict=True)
            ]
        if ordered.dtype.kind == "f":
            ordered += 0.0
        are_new = np.ones(ordered.shape, np.bool_)
        np.not_equal(ordered[:, 1:], ordered[:, :-1], out=are_new[:, 1:])
        unique, zeros = are_new.sum(axis=1).tolist(), (count - np.count_nonzero(matrix, axis=1)).tolist()
        moments = QuickMoments.of_rows(matrix, np.maximum(np.abs(least), np.abs(greatest)))
        found = []
        for place, repeated in enumerate(ordered):
            values, times = _once(repeated, are_new[place], unique[place])
            counts = NumberCounts(moments[place], plain_number(values[0]), plain_number(values[-1]), zeros[place])
            found.append(cls(count, values, times, (0, 0, 0), counts, repeated))
        return found

    def counts(self) -> NumberCounts:
        """What is told of all numbers, where these are all."""
        if isinstance(self.finite, NumberCounts):
            return self.finite
        return NumberCounts.of_ordered(self.finite, self.values, self.times, self.odd)

    def told(self, counts: NumberCounts) -> NumberStatistics:
        """What these tell, with the counts of all numbers."""
        values, times = self.values, self.times
        quantiles, frequent = Quantiles(self.size), FrequentNumbers()
        buckets: tuple[Bucket, ...] = ()
        if len(values):
            every: tuple[Numbers, Times] = (values, times) if self.repeated is None else (self.repeated, None)
            quantiles.add(*every)
            frequent.add(values, times)
            width = EqualWidth(values[0].item(), values[-1].item())
            width.add(*every)
            buckets = width.buckets()
        nan, minus, plus = self.odd
        moments = counts.moments
        return NumberStatistics(
            values=moments.values, unique=len(values), zeros=counts.zeros, nan=counts.nan,
            minus_infinity=counts.minus_infinity, plus_infinity=counts.plus_infinity, least=counts.least,
            greatest=counts.greatest, mean=moments.mean(), deviation=moments.deviation(),
            quantiles=quantiles.found(), histogram=Histogram(with_infinities(buckets, minus, plus), nan),
            frequent=frequent.found(),
        )  # fmt: skip


def _counted_near(numbers: Numbers) -> tuple[Numbers, Times] | None:
    """The different ones of many whole numbers in their order, and how often each is there; None where sorting is as quick."""
    if numbers.dtype.kind == "f" or len(numbers) <= FEW_SORTED:
        return None
    least, greatest = numbers.min(), numbers.max()
    if int(greatest) - int(least) >= FEW_PER_VALUE * len(numbers):
        return None
    counts = np.bincount(numbers - least)
    there = np.flatnonzero(counts)
    return there.astype(numbers.dtype) + least, counts[there]


def _once(ordered: Numbers, are_new: npt.NDArray[np.bool_], unique: int) -> tuple[Numbers, Times]:
    """The different ones of numbers in their order, of which so many are unlike the one before, and how often each is there."""
    if unique == len(ordered):
        return ordered, None
    first = np.flatnonzero(are_new)
    times = np.empty(unique, np.int64)
    np.subtract(first[1:], first[:-1], out=times[:-1])
    times[-1] = len(ordered) - first[-1]
    return ordered[first], times

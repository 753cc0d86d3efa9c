"""Histograms of numbers: in buckets of equal width, each column's over its own range."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

BUCKETS = 10
"""As many as TensorFlow Data Validation has."""


class Bucket(NamedTuple):
    """The values above `low` and up to `high`; the first bucket of a range also has those that are `low`."""

    low: float
    high: float
    values: float


@dataclass(frozen=True)
class Histogram:
    """Buckets from the lowest to the highest, and beside them how many values are NaN.

    A bucket without width is a single value; minus and plus infinity are such, before and after all others.
    """

    buckets: tuple[Bucket, ...]
    nan: float = 0

    @property
    def is_empty(self) -> bool:
        """Whether it is of no values."""
        return not self.nan and not any(bucket.values for bucket in self.buckets)


class EqualWidth:
    """Counts values in buckets of equal width between the least and the greatest of them."""

    def __init__(self, least: float, greatest: float) -> None:
        least, greatest = float(least), float(greatest)  # two whole numbers may be one double; singles have few digits
        # Between neighbours among the doubles there are fewer; a single value is a bucket without width.
        self._edges = sorted({*_edges(least, greatest)}) if greatest > least else [least, greatest]
        self._counts = [0] * (len(self._edges) - 1)

    def add(self, values: npt.NDArray[Any], counts: npt.NDArray[np.int64] | None = None) -> None:
        """Count each value so many times, or once. Values come from the least to the greatest, perhaps several times."""
        inner, total = values.astype(np.float64, copy=False).searchsorted(self._edges[1:-1], side="right"), len(values)
        if counts is not None:
            upto = np.concatenate(([0], np.cumsum(counts)))
            inner, total = upto[inner], int(upto[-1])
        before = 0
        for bucket, upto_here in enumerate((*inner.tolist(), total)):
            self._counts[bucket] += upto_here - before
            before = upto_here

    def buckets(self) -> tuple[Bucket, ...]:
        """All of them, those without values too."""
        return tuple(map(Bucket, self._edges, self._edges[1:], self._counts))


def _edges(least: float, greatest: float) -> list[float]:
    """From the least to the greatest, equally far from each other, as numpy's `linspace` rounds them."""
    scale = 1.0 if isfinite(greatest - least) else 0.5  # a power of two: nothing is rounded by it
    low, width = least * scale, greatest * scale - least * scale
    step = width / BUCKETS
    inner = [place * step + low if step else place / BUCKETS * width + low for place in range(BUCKETS)]
    return [*(edge / scale for edge in inner), greatest]


def with_infinities(buckets: tuple[Bucket, ...], minus: int, plus: int) -> tuple[Bucket, ...]:
    """Buckets of what is finite between those of minus and plus infinity, of which there are so many."""
    below, above = (
        (Bucket(value, value, count),) if count else () for value, count in ((-np.inf, minus), (np.inf, plus))
    )
    return (*below, *buckets, *above)

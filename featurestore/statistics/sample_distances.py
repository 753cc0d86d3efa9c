"""How far two samples of numbers are apart, each number counted: Kolmogorov-Smirnov, Wasserstein-1, and the population stability index.

Both samples are looked at whole, so that nothing hangs on buckets but the index, which is defined by them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from featurestore.statistics.distances import Counts

BINS = 10
"""Into how many parts of as many values the baseline is cut for the population stability index."""

LEAST_SHARE = 1e-4
"""What a part without values counts as in the population stability index, whose logarithm would be infinite else."""

Values = npt.NDArray[Any]


class Sample(NamedTuple):
    """Numbers that are there, each once, from the least to the greatest, and how often each is; NaN is the greatest of all."""

    values: Values
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: Values) -> Self:
        """Of a column without what is missing; -0.0 and 0.0 are one number, and so are all NaN."""
        found, counts = np.unique(values, return_counts=True)
        return cls(found, counts.astype(np.int64))

    @property
    def size(self) -> int:
        """How many there are."""
        return int(self.counts.sum())

    def finite(self) -> Self:
        """Without infinities and NaN."""
        kept = np.isfinite(self.values)
        return self if kept.all() else self._replace(values=self.values[kept], counts=self.counts[kept])


def kolmogorov_smirnov(one: Sample, other: Sample) -> float:
    """The greatest difference between the shares of values up to any number, 0 to 1. Raises ValueError where a side has no values.

    Source of the definition: N. Smirnov, Table for estimating the goodness of fit of empirical distributions, 1948.
    """
    _, shares, others = _shares_upto(one, other)
    return float(np.abs(shares - others).max())


def wasserstein(one: Sample, other: Sample) -> float | None:
    """The area between the shares of values up to each number: how far, in the column's unit, a value has to be moved in the mean to make
    one sample the other. Of what is finite; None where a side has nothing that is.

    Source of the definition: L. Vaserstein, Markov processes over denumerable products of spaces, 1969.
    """
    one, other = one.finite(), other.finite()
    if not one.size or not other.size:
        return None
    values, shares, others = _shares_upto(one, other)
    numbers = values.astype(np.float64)
    scale = 1.0 if math.isfinite(float(numbers[-1]) - float(numbers[0])) else 0.5  # no step is infinite by itself
    return float(np.sum(np.abs(shares - others)[:-1] * np.diff(numbers * scale))) / scale


def _shares_upto(one: Sample, other: Sample) -> tuple[Values, Values, Values]:
    """All numbers of both, and of each which share of its values goes up to each of these."""
    if not one.size or not other.size:
        raise ValueError("A sample of no values has no distance to another")
    values = np.union1d(one.values, other.values)
    return values, _upto(one, values), _upto(other, values)


def _upto(side: Sample, values: Values) -> Values:
    places = np.searchsorted(side.values, values, side="right")
    return np.concatenate(([0], np.cumsum(side.counts)))[places] / side.size


def stability_index(baseline: Sample, other: Sample) -> float:
    """The population stability index of numbers, over the tenths of the baseline: the sum of (p - q) ln(p / q) of the shares of both sides
    in each part. NaN is a part of its own, and infinities lie in the outermost. Raises ValueError where a side has no values.

    Below 0.1 there is little change by the usual rule of thumb, above 0.25 a great one.
    Source of the definition: E. Lewis, An introduction to credit scoring, 1994.
    """
    if not baseline.size or not other.size:
        raise ValueError("A sample of no values has no distance to another")
    there = baseline.values[~np.isnan(baseline.values)] if baseline.values.dtype.kind == "f" else baseline.values
    edges = there[:0]
    if len(there):
        upto = np.cumsum(baseline.counts[: len(there)])
        ranks = [-(-int(upto[-1]) * part // BINS) for part in range(1, BINS)]
        edges = np.unique(there[np.searchsorted(upto, np.maximum(ranks, 1))])
    return _index(*(_in_parts(side, edges) for side in (baseline, other)))


def _in_parts(side: Sample, edges: Values) -> Values:
    """How many values lie up to each edge, beyond the last one, and are NaN."""
    places = np.searchsorted(edges, side.values, side="left")
    if side.values.dtype.kind == "f":
        places = np.where(np.isnan(side.values), len(edges) + 1, places)
    return np.bincount(places, weights=side.counts, minlength=len(edges) + 2)


def stability_index_of_counts(baseline: Counts, other: Counts) -> float:
    """The same of how often each text is there: each that the baseline has is a part, and all others together are one more."""
    if not any(baseline.values()) or not any(other.values()):
        raise ValueError("A side of no values has no distance to another")
    listed = list(baseline)
    more = math.fsum(count for value, count in other.items() if value not in baseline)
    return _index(
        np.array([*baseline.values(), 0.0]), np.array([*(float(other.get(value, 0)) for value in listed), more])
    )


def _index(one: Values, other: Values) -> float:
    there = (one > 0) | (other > 0)
    p, q = (np.maximum(side[there] / side.sum(), LEAST_SHARE) for side in (one, other))
    return float(np.sum((p - q) * np.log(p / q)))

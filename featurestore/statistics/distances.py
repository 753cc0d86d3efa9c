"""How far two columns are apart: the L-infinity and the Jensen-Shannon distance, as TensorFlow Data Validation defines them.

Missing values are no part of either; their share is compared on its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.statistics.histogram import Bucket, Histogram

Counts = Mapping[Any, float]
"""How often each value is there: texts, or bytes."""

Masses = npt.NDArray[np.float64]


def infinity_norm(one: Counts, other: Counts) -> float:
    """The greatest difference between the shares of a value on two sides, 0 to 1, given how often each value is there.

    A side without values has shares of 0.
    """
    shares, others = _shares(one), _shares(other)
    return max((abs(shares.get(value, 0.0) - others.get(value, 0.0)) for value in {**shares, **others}), default=0.0)


def _shares(counts: Counts) -> dict[Any, float]:
    total = math.fsum(counts.values())
    return {value: count / total for value, count in counts.items()} if total else {}


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def jensen_shannon(one: Histogram, other: Histogram) -> float:
    """The Jensen-Shannon divergence of two histograms, to base 2: 0 where they are alike, 1 where they share nothing.

    The buckets of both are cut at the edges of both, a count being spread evenly over its bucket. A bucket without width
    meets none but its like. What is infinite or NaN on one side meets nothing on the other, not even the same. TFDV 1.16.1
    forgets how many are NaN where the edges of both differ; here they count always.
    Raises ValueError where a side has no values.
    """
    if one.is_empty or other.is_empty:
        raise ValueError("A histogram of no values has no distance to another")
    p, q = _aligned(one, other)
    return _divergence(p / p.sum(), q / q.sum())


def jensen_shannon_of_counts(one: Counts, other: Counts) -> float:
    """The same of how often each value is there on two sides."""
    if not any(one.values()) or not any(other.values()):
        raise ValueError("A side of no values has no distance to another")
    shares, others = _shares(one), _shares(other)
    values = sorted({*shares, *others}, key=_bytes)
    return _divergence(*(np.array([side.get(value, 0.0) for value in values]) for side in (shares, others)))


def _divergence(p: Masses, q: Masses) -> float:
    middle = (p + q) / 2
    return min((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2, 1.0)


def _relative_entropy(p: Masses, q: Masses) -> float:
    there = (p > 0) & (q > 0)
    return float(np.sum(p[there] * np.log2(p[there] / q[there])))


def _aligned(one: Histogram, other: Histogram) -> tuple[Masses, Masses]:
    """The masses of both histograms in the same cells."""
    edges = np.unique([edge for bucket in (*_wide(one), *_wide(other)) for edge in bucket[:2]])
    points = sorted({bucket.low for bucket in (*_points(one), *_points(other))})
    masses, others = ([_spread(side, edges), _at(side, points)] for side in (one, other))
    for mass, against in ((_infinite(one), 0.0), (0.0, _infinite(other)), (0.0, other.nan), (one.nan, 0.0)):
        masses.append(np.array([mass]))
        others.append(np.array([against]))
    return np.concatenate(masses), np.concatenate(others)


def _is_finite(bucket: Bucket) -> bool:
    return math.isfinite(bucket.low) and math.isfinite(bucket.high)


def _wide(histogram: Histogram) -> Iterator[Bucket]:
    return (bucket for bucket in histogram.buckets if _is_finite(bucket) and bucket.low != bucket.high)


def _points(histogram: Histogram) -> Iterator[Bucket]:
    return (bucket for bucket in histogram.buckets if _is_finite(bucket) and bucket.low == bucket.high)


def _infinite(histogram: Histogram) -> float:
    return math.fsum(bucket.values for bucket in histogram.buckets if not _is_finite(bucket))


def _spread(histogram: Histogram, edges: Masses) -> Masses:
    """The mass between each edge and the next."""
    masses = np.zeros(max(len(edges) - 1, 0))
    whole = float(edges[-1]) - float(edges[0]) if len(edges) else 0.0
    scale = 1.0 if math.isfinite(whole) else 0.5
    widths = np.diff(edges * scale)
    for low, high, count in _wide(histogram):
        cells = slice(int(np.searchsorted(edges, low)), int(np.searchsorted(edges, high)))
        masses[cells] += widths[cells] / (high * scale - low * scale) * count
    return masses


def _at(histogram: Histogram, points: list[float]) -> Masses:
    """The mass of each single value."""
    masses = np.zeros(len(points))
    for bucket in _points(histogram):
        masses[points.index(bucket.low)] += bucket.values
    return masses

"""By every measure that suits its type, how far a column of a feature is from a baseline of the same feature."""

from __future__ import annotations

import numpy as np

from featurestore.declare.drift_limits import MEASURES
from featurestore.lazy import pa, pc
from featurestore.statistics.column_statistics import norms_of
from featurestore.statistics.distances import Counts, infinity_norm, jensen_shannon, jensen_shannon_of_counts
from featurestore.statistics.histogram import Bucket, EqualWidth, Histogram, with_infinities
from featurestore.statistics.sample_distances import (
    Sample,
    kolmogorov_smirnov,
    stability_index,
    stability_index_of_counts,
    wasserstein,
)
from featurestore.types import FeatureType

TEXTS = frozenset({"Bool", "String", "Bytes"})

Distances = dict[str, float | None]
"""By measure; None where a side has no values of which there is one."""


def measures_of(of: FeatureType) -> tuple[str, ...]:
    """The measures that a type has, in the order of MEASURES."""
    own = {"missing"}
    own |= {"l_infinity"} if (of.element or of).kind in TEXTS else {"kolmogorov_smirnov", "wasserstein"}
    own |= {"jensen_shannon", "psi"} | ({"length"} if of.kind == "Array" else set())
    own |= {"norm"} if of.kind == "Embedding" else set()
    return tuple(name for name in MEASURES if name in own)


def distances_of(baseline: pa.ChunkedArray, other: pa.ChunkedArray, of: FeatureType) -> Distances:
    """The distances of two columns of a type, in its own Arrow type, of any numbers of rows."""
    found: Distances = dict.fromkeys(measures_of(of))
    if len(baseline) and len(other):
        found["missing"] = abs(baseline.null_count / len(baseline) - other.null_count / len(other))
    sides = [column.drop_null() for column in (baseline, other)]
    if of.element is not None and all(map(len, sides)):
        if "length" in found:
            found["length"] = kolmogorov_smirnov(*(numbers_in(pc.list_value_length(side)) for side in sides))
        if "norm" in found:
            found["norm"] = kolmogorov_smirnov(*(Sample.of(norms_of(side, of)) for side in sides))
        sides = [pc.list_flatten(side).drop_null() for side in sides]
    if all(map(len, sides)):
        inner = of.element or of
        found |= _of_texts(*map(texts_in, sides)) if inner.kind in TEXTS else _of_numbers(*map(numbers_in, sides))
    return found


def _of_texts(baseline: Counts, other: Counts) -> Distances:
    return {
        "l_infinity": infinity_norm(baseline, other),
        "jensen_shannon": jensen_shannon_of_counts(baseline, other),
        "psi": stability_index_of_counts(baseline, other),
    }


def _of_numbers(baseline: Sample, other: Sample) -> Distances:
    return {
        "jensen_shannon": jensen_shannon(_histogram(baseline), _histogram(other)),
        "psi": stability_index(baseline, other),
        "kolmogorov_smirnov": kolmogorov_smirnov(baseline, other),
        "wasserstein": wasserstein(baseline, other),
    }


def texts_in(column: pa.ChunkedArray) -> Counts:
    """How often each text, or truth value, is in a column without nulls."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.string())
    counted = column.combine_chunks().value_counts()
    return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))


def numbers_in(column: pa.ChunkedArray) -> Sample:
    """The numbers of a column without nulls; dates and times as counts, decimals as the nearest doubles."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.int32())
    elif pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return Sample.of(column.to_numpy())


def _histogram(sample: Sample) -> Histogram:
    finite = sample.finite()
    buckets: tuple[Bucket, ...] = ()
    minus, plus, nan = 0, 0, 0
    if finite.size:
        width = EqualWidth(finite.values[0], finite.values[-1])
        width.add(finite.values, finite.counts)
        buckets = width.buckets()
    if sample.values.dtype.kind == "f":
        minus, plus, nan = (
            int(sample.counts[odd(sample.values)].sum()) for odd in (np.isneginf, np.isposinf, np.isnan)
        )
    return Histogram(with_infinities(buckets, minus, plus), nan)

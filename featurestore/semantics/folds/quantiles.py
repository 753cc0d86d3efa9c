"""ApproxQuantile: a DDSketch whose buckets come from the double's bits.

A double is m·2^e with ½ ≤ m < 1. Its bucket is e and the first bits of m: as many bits as make the two ends of a bucket
differ by no more than the declared accuracy allows, so that

    |answer − value at the rank| ≤ accuracy · |value at the rank|

The sketch is DDSketch (Masson, Rim, Lee, 2019), its collapse UDDSketch's (Epicoco et al., 2020): when more than 2,048
buckets are in use, all are merged two by two, which halves the bits; the level is the least at which they fit, whatever
the order in which rows came. With an accuracy of 0.01 that happens from 32 octaves on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

from featurestore.semantics.folds.algebra import Algebra, CertainAlgebra, Place
from featurestore.semantics.folds.exact import measure_of, rounded
from featurestore.semantics.folds.packing import pack_ints, unpack_ints
from featurestore.semantics.folds.table import FoldKind, add_fold
from featurestore.types import FeatureType, Float64, Scalar

Buckets = tuple[tuple[int, int], ...]
MOST_BUCKETS = 2048
FINEST = 20


class Sketch(NamedTuple):
    """Counts by place in the order of values; `below` and `above` zero: (bucket of |x|, count), ascending."""

    level: int = 0
    minus: int = 0
    below: Buckets = ()
    zeros: int = 0
    above: Buckets = ()
    plus: int = 0
    nan: int = 0


EMPTY = Sketch()


@dataclass(frozen=True, slots=True)
class DDSketch(CertainAlgebra):
    """The state: a Sketch; buckets of level 0 have `bits` bits of the mantissa beside the exponent."""

    q: Fraction
    bits: int
    takes_null: bool = False
    zero: Sketch = EMPTY

    def lift(self, value: Scalar, place: Place) -> Sketch:  # noqa: ARG002 - one form for every fold
        """One value; integers and decimals as the nearest double."""
        x = float(value)
        if not math.isfinite(x):
            return Sketch(nan=int(x != x), plus=int(x == math.inf), minus=int(x == -math.inf))  # noqa: PLR0124 - NaN
        if x == 0:
            return Sketch(zeros=1)
        mantissa, exponent = math.frexp(abs(x))
        bucket = ((exponent - 2) << self.bits) + int(math.ldexp(mantissa, self.bits + 1))
        return Sketch(above=((bucket, 1),)) if x > 0 else Sketch(below=((bucket, 1),))

    def merge(self, a: Sketch, b: Sketch) -> Sketch:
        """The sums of the counts, at the least level at which the buckets are few enough."""
        level = max(a.level, b.level)
        below = _added(chain(_coarser(a.below, level - a.level), _coarser(b.below, level - b.level)))
        above = _added(chain(_coarser(a.above, level - a.level), _coarser(b.above, level - b.level)))
        while len(below) + len(above) > MOST_BUCKETS:
            level += 1
            below, above = _added(_coarser(below.items(), 1)), _added(_coarser(above.items(), 1))
        return Sketch(
            level,
            a.minus + b.minus,
            tuple(sorted(below.items())),
            a.zeros + b.zeros,
            tuple(sorted(above.items())),
            a.plus + b.plus,
            a.nan + b.nan,
        )

    def value(self, state: Sketch) -> float | None:
        """About the value of rank ⌊q·(n − 1)⌋, from 0, in the order of values, NaN greatest; null of no values."""
        total = state.minus + state.zeros + state.plus + state.nan
        total += sum(count for _, count in state.below) + sum(count for _, count in state.above)
        if not total:
            return None
        rank = math.floor(self.q * (total - 1)) - state.minus
        if rank < 0:
            return -math.inf
        for bucket, count in reversed(state.below):
            rank -= count
            if rank < 0:
                return -self._middle(bucket, state.level)
        rank -= state.zeros
        if rank < 0:
            return 0.0
        for bucket, count in state.above:
            rank -= count
            if rank < 0:
                return self._middle(bucket, state.level)
        return math.inf if rank < state.plus else math.nan

    def _middle(self, bucket: int, level: int) -> float:
        """The number whose relative distance from both ends of a bucket is the same: 2·low·high / (low + high)."""
        low, high = self._edge(bucket << level), self._edge((bucket + 1) << level)
        return rounded(*(2 * low * high / (low + high)).as_integer_ratio(), Float64)

    def _edge(self, bucket: int) -> Fraction:
        exponent, step = divmod(bucket, 1 << self.bits)
        return Fraction((1 << self.bits) + step, 1 << self.bits) * Fraction(2) ** exponent

    def pack(self, state: Sketch) -> bytes:
        """The level, the counts apart, then each bucket's distance from the one before and its count."""
        if state == EMPTY:
            return b""
        head = (state.level, state.minus, state.zeros, state.plus, state.nan, len(state.below))
        return pack_ints(chain(head, _steps(state.below), _steps(state.above)))

    def unpack(self, data: bytes) -> Sketch:
        """The state that `pack` wrote."""
        if not data:
            return EMPTY
        level, minus, zeros, plus, nan, negative, *rest = unpack_ints(data)
        below, above = _buckets(rest[: 2 * negative]), _buckets(rest[2 * negative :])
        return Sketch(level, minus, below, zeros, above, plus, nan)


def _coarser(buckets: Iterable[tuple[int, int]], levels: int) -> Iterable[tuple[int, int]]:
    return ((bucket >> levels, count) for bucket, count in buckets) if levels else buckets


def _added(buckets: Iterable[tuple[int, int]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for bucket, count in buckets:
        counts[bucket] = counts.get(bucket, 0) + count
    return counts


def _steps(buckets: Buckets) -> Iterable[int]:
    before = 0
    for bucket, count in buckets:
        yield bucket - before
        yield count
        before = bucket


def _buckets(numbers: list[int]) -> Buckets:
    buckets, bucket = [], 0
    for step, count in zip(numbers[::2], numbers[1::2], strict=True):
        bucket += step
        buckets.append((bucket, count))
    return tuple(buckets)


def quantile_result(column: FeatureType | None, q: float, accuracy: float = 0.01) -> FeatureType:
    """Float64; ValueError where the column holds no numbers, or q or accuracy is out of range."""
    if column is None:
        raise ValueError("it needs a column")
    measure_of(column)
    if not 0 <= q <= 1:
        raise ValueError(f"q is 0 to 1, not {q}")
    if not 2.0**-FINEST <= accuracy < 1:
        raise ValueError(f"accuracy is at least 2^-{FINEST} and less than 1, not {accuracy}")
    return Float64


def approx_quantile(column: FeatureType | None, result: FeatureType, q: float, accuracy: float = 0.01) -> Algebra:
    """About the value below which a share `q` of the values lies; q and accuracy count as they are written in decimal."""
    quantile_result(column, q, accuracy)
    if result != Float64:
        raise ValueError(f"a quantile is Float64, not {result}")
    least = 1 / Fraction(repr(accuracy))
    bits = next(bits for bits in range(FINEST + 1) if (2 << bits) + 1 > least)
    return DDSketch(Fraction(repr(q)), bits)


DOCS = (
    "| `ApproxQuantile(c, q, accuracy=0.01)` | numbers | Float64, within `accuracy` (relative) of the quantile | null | |",
)

add_fold(FoldKind("ApproxQuantile", quantile_result, approx_quantile, DOCS, large=True))

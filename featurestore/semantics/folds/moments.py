"""Var and StdDev: exact n, Σx and Σx², and one rounding at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa
from featurestore.semantics.folds.algebra import Algebra, CertainAlgebra, FoldColumn, PartialSums, Place, SumField
from featurestore.semantics.folds.columnar import TEN_POWER, absolute, python_sums, rebased, round_quotients, taller
from featurestore.semantics.folds.exact import Measure, measure_of, rounded, rounded_root
from featurestore.semantics.folds.limbs import Ints, Limbs, carried, squares_of_limbs
from featurestore.semantics.folds.packing import pack_ints, unpack_ints
from featurestore.semantics.folds.sums import mean_result
from featurestore.semantics.folds.table import FoldKind, add_fold
from featurestore.types import FeatureType, Scalar

Sums = tuple[int, int, int, int]

DOUBLE_UNIT_BITS = 1074
"""The unit of Float64 is 2^-1074."""

EMPTY_BITS = 900
"""The low bits that are zero in sums of float64s of 2^-122 and more, or of fewer digits; in sums of their squares twice as many."""

LOW, LOW_OF_SQUARES = (1 << EMPTY_BITS) - 1, (1 << 2 * EMPTY_BITS) - 1


@dataclass(frozen=True, slots=True)
class Moments(CertainAlgebra):
    """The state: how many values, how many of them are NaN or infinite, Σx and Σx² of the finite ones in their units."""

    measure: Measure
    result: FeatureType
    ddof: int
    root: bool
    takes_null: bool = False
    zero: Sums = (0, 0, 0, 0)
    numbers: tuple[str, ...] = ("values", "unbounded", "sum", "squares")
    sum_fields: tuple[SumField, ...] = ("sums", "squares", "special")

    def lift(self, value: Scalar, place: Place) -> Sums:  # noqa: ARG002 - one form for every fold
        """One value."""
        if isinstance(value, float) and not math.isfinite(value):
            return 1, 1, 0, 0
        whole = self.measure.whole(value)
        return 1, 0, whole, whole * whole

    def merge(self, a: Sums, b: Sums) -> Sums:
        """The sums of both."""
        return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]

    def value(self, state: Sums) -> Scalar:
        """Null unless there are more than ddof values; NaN with any NaN or infinity."""
        values, unbounded, first, second = state
        if values <= self.ddof:
            return None
        return math.nan if unbounded else finish_moments(self, values, first, second)

    def finish_sums(self, sums: PartialSums) -> FoldColumn:
        """Of all requests."""
        assert sums.sums is not None
        assert sums.squares is not None
        values = moments(self, sums.values, sums.sums, sums.squares)
        if sums.special is not None:
            values = np.where(sums.special.any(axis=0), values.dtype.type(np.nan), values)
        return FoldColumn(pa.array(values, self.result.arrow, mask=sums.values <= self.ddof))

    def pack(self, state: Sums) -> bytes:
        """The counts, then each sum without its trailing zero bits, and how many those are."""
        values, unbounded, first, second = state
        low = (first & -first).bit_length() - 1 if first else 0
        lower = (second & -second).bit_length() - 1 if second else 0
        return pack_ints((values, unbounded, first >> low, low, second >> lower, lower))

    def unpack(self, data: bytes) -> Sums:
        """The state that `pack` wrote."""
        values, unbounded, first, low, second, lower = unpack_ints(data)
        return values, unbounded, first << low, second << lower


def finish_moments(of: Moments, values: int, first: int, second: int) -> float:
    """(n·Σx² − (Σx)²) / (n·(n − ddof)), or its root, rounded once; the sums are integers in the measure's units.

    Nearly always their low bits are zero, and integers a fifth as long do: 2 × as fast (`benchmarks fast-paths`).
    """
    unit = of.measure.unit
    if of.measure.bits == DOUBLE_UNIT_BITS and not first & LOW and not second & LOW_OF_SQUARES:
        first, second, unit = first >> EMPTY_BITS, second >> 2 * EMPTY_BITS, unit >> EMPTY_BITS
    numerator = values * second - first * first
    denominator = values * (values - of.ddof) * unit * unit
    return (rounded_root if of.root else rounded)(numerator, denominator, of.result)


def moments(of: Moments, values: Ints, first: Limbs, second: Limbs) -> npt.NDArray[Any]:
    """Var or StdDev from n, Σx and Σx² (`squares_of_…`), as float64[m] or float32[m].

    `values` below 2^31. Where there are no more values than ddof the number is arbitrary: the caller gives null.
    A variance is computed in limbs, a root by Python integers, row by row.
    """
    ddof = np.int64(of.ddof)
    enough = values > ddof
    if of.root:
        return _roots(of, np.where(enough, values, ddof + 1), first, second)
    size, _ = absolute(first.digits)
    base = min(2 * first.base, second.base)
    squares = rebased(base, 2 * first.base, -squares_of_limbs(size))
    scaled = rebased(base, second.base, carried(second.digits) * values)
    limbs = max(len(squares), len(scaled))
    size, negative = absolute(taller(squares, limbs) + taller(scaled, limbs))
    scale = of.measure.unit
    tens = 0 if of.measure.bits is not None else 2 * (len(str(scale)) - 1)
    steps: list[Ints | np.int64] = [np.maximum(values, 1), np.where(enough, values - ddof, 1)]
    steps += [np.int64(10 ** min(TEN_POWER, tens - done)) for done in range(0, tens, TEN_POWER)]
    return round_quotients(base, size, negative, of.result, steps)


def _roots(of: Moments, values: Ints, first: Limbs, second: Limbs) -> npt.NDArray[Any]:
    base = min(first.base, second.base // 2)  # a unit of which both sums are multiples
    up = max(base, 0)
    measure = of.measure if of.measure.bits is None else Measure(1 << max(-base, 0))
    one_up, two_up = first.base - base + up, second.base - 2 * base + 2 * up
    sums = zip(values.tolist(), python_sums(first.digits), python_sums(second.digits), strict=True)
    smaller = replace(of, measure=measure)
    roots = [finish_moments(smaller, n, one << one_up, two << two_up) for n, one, two in sums]
    return np.array(roots, of.result.numpy)


def spread_result(column: FeatureType | None, ddof: int = 1) -> FeatureType:
    """Float64; ValueError where the column holds no numbers, or ddof is negative."""
    if ddof < 0:
        raise ValueError(f"ddof is 0 (population) or 1 (sample), not {ddof}")
    return mean_result(column)


def var(column: FeatureType | None, result: FeatureType, ddof: int = 1) -> Algebra:
    """The variance; ddof 1 of a sample, 0 of a population."""
    return _spread(column, result, ddof, root=False)


def stddev(column: FeatureType | None, result: FeatureType, ddof: int = 1) -> Algebra:
    """The square root of the variance."""
    return _spread(column, result, ddof, root=True)


def _spread(column: FeatureType | None, result: FeatureType, ddof: int, *, root: bool) -> Moments:
    spread_result(column, ddof)
    assert column is not None
    if not result.is_float:
        raise ValueError(f"it is Float64 or Float32, not {result}")
    return Moments(measure_of(column), result, ddof, root)


DOCS = (
    "| `Var(c, ddof=1)`, `StdDev(c, ddof=1)` | numbers | Float64; any NaN or infinity gives NaN | null, as with `ddof` values or fewer | |",
)

add_fold(FoldKind("Var", spread_result, var, DOCS))
add_fold(FoldKind("StdDev", spread_result, stddev, DOCS))

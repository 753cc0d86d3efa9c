"""Sum and Mean: exact sums of integers, decimals and floats, rounded once when they are finished."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal as _Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa, pc
from featurestore.semantics.folds.algebra import Algebra, CertainAlgebra, FoldColumn, PartialSums, Place, SumField
from featurestore.semantics.folds.columnar import decimal_sums, round_sums, whole_sums, with_specials
from featurestore.semantics.folds.exact import Measure, measure_of, rounded
from featurestore.semantics.folds.packing import pack_ints, unpack_ints
from featurestore.semantics.folds.table import FoldKind, add_fold
from featurestore.semantics.status import Status
from featurestore.types import Decimal, FeatureType, Float64, Int64, Scalar

WholeState = tuple[int, int]
FloatState = tuple[int, int, int, int, int]
LARGEST = {"Int32": (1 << 31) - 1, "Int64": (1 << 63) - 1}


@dataclass(frozen=True, slots=True)
class WholeTotal(Algebra):
    """Of integers and decimals. The state: how many values, and their sum in units of the measure."""

    measure: Measure
    result: FeatureType
    mean: bool
    takes_null: bool = False
    zero: WholeState = (0, 0)
    numbers: tuple[str, ...] = ("values", "sum")
    sum_fields: tuple[SumField, ...] = ("sums", "special")

    def lift(self, value: Scalar, place: Place) -> WholeState:  # noqa: ARG002 - one form for every fold
        """One value."""
        return 1, self.measure.whole(value)

    def merge(self, a: WholeState, b: WholeState) -> WholeState:
        """The sums of both."""
        return a[0] + b[0], a[1] + b[1]

    def finish(self, state: WholeState) -> tuple[Scalar, Status]:
        """Null of no values; a sum beyond the result is null, OVERFLOW; a mean is rounded once."""
        values, whole = state
        if not values:
            return None, Status.PRESENT
        if self.mean:
            return rounded(whole, values * self.measure.unit, self.result), Status.PRESENT
        scaled = whole * (10**self.result.scale // self.measure.unit)
        if self.result.kind == "Decimal":
            fits, value = abs(scaled) < 10**self.result.precision, _Decimal(f"{scaled}E-{self.result.scale}")
            return (value, Status.PRESENT) if fits else (None, Status.OVERFLOW)
        largest = LARGEST[self.result.kind]
        return (scaled, Status.PRESENT) if -largest - 1 <= scaled <= largest else (None, Status.OVERFLOW)

    def finish_sums(self, sums: PartialSums) -> FoldColumn:
        """The sums, or the means."""
        assert sums.sums is not None
        empty, digits, of = sums.values == 0, sums.sums.digits, self.result
        scale = len(str(self.measure.unit)) - 1
        if self.mean:
            means = round_sums(sums.sums.base, digits, of, divisor=np.maximum(sums.values, 1), scale=scale)
            return FoldColumn(pa.array(means, of.arrow, mask=empty))
        if of.kind == "Decimal":
            values, overflow = decimal_sums(digits, of, scale=scale)
            return FoldColumn(pc.if_else(pa.array(empty), pa.scalar(None, of.arrow), values), overflow & ~empty)
        whole, overflow = whole_sums(digits, 32 if of.kind == "Int32" else 64)
        overflow &= ~empty
        none = empty | overflow
        return FoldColumn(pa.array(np.where(none, 0, whole), mask=none).cast(of.arrow), overflow)

    def pack(self, state: WholeState) -> bytes:
        """Both numbers."""
        return pack_ints(state)

    def unpack(self, data: bytes) -> WholeState:
        """The state that `pack` wrote."""
        values, whole = unpack_ints(data)
        return values, whole


@dataclass(frozen=True, slots=True)
class FloatTotal(CertainAlgebra):
    """Of floats. The state: how many values, NaN, +inf and -inf there are, and the exact sum of the finite values.

    The sum is an integer in units of the smallest subnormal, so that merging is adding. Packed it is what it is as a
    dyadic rational: an odd integer and an exponent.
    """

    measure: Measure
    result: FeatureType
    mean: bool
    takes_null: bool = False
    zero: FloatState = (0, 0, 0, 0, 0)
    numbers: tuple[str, ...] = ("values", "nan", "plus", "minus", "sum")
    sum_fields: tuple[SumField, ...] = ("sums", "special")

    def lift(self, value: Scalar, place: Place) -> FloatState:  # noqa: ARG002 - one form for every fold
        """One value."""
        if math.isfinite(value):
            return 1, 0, 0, 0, self.measure.whole(value)
        return 1, int(math.isnan(value)), int(value == math.inf), int(value == -math.inf), 0

    def merge(self, a: FloatState, b: FloatState) -> FloatState:
        """The sums of both."""
        return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4]

    def value(self, state: FloatState) -> Scalar:
        """Null of no values; NaN where there is a NaN or both infinities; else the true value, rounded once."""
        values, nan, plus, minus, whole = state
        if not values:
            return None
        if nan or (plus and minus):
            return math.nan
        if plus or minus:
            return math.inf if plus else -math.inf
        unit = self.measure.unit * values if self.mean else self.measure.unit
        return rounded(whole, unit, self.result)

    def finish_sums(self, sums: PartialSums) -> FoldColumn:
        """The sums, or the means."""
        assert sums.sums is not None
        divisor = np.maximum(sums.values, 1) if self.mean else None
        values: npt.NDArray[Any] = round_sums(sums.sums.base, sums.sums.digits, self.result, divisor=divisor)
        if sums.special is not None:
            values = with_specials(values, *sums.special)
        return FoldColumn(pa.array(values, self.result.arrow, mask=sums.values == 0))

    def pack(self, state: FloatState) -> bytes:
        """The counts, the odd integer and its exponent."""
        *counts, whole = state
        zeros = (whole & -whole).bit_length() - 1 if whole else 0
        return pack_ints((*counts, whole >> zeros, zeros))

    def unpack(self, data: bytes) -> FloatState:
        """The state that `pack` wrote."""
        values, nan, plus, minus, odd, zeros = unpack_ints(data)
        return values, nan, plus, minus, odd << zeros


def sum_result(column: FeatureType | None) -> FeatureType:
    """Int64 of integers, Decimal(38, s) of Decimal(p, s), Float64 of floats; ValueError for other types."""
    if column is None:
        raise ValueError("it needs a column")
    measure_of(column)
    if column.is_float:
        return Float64
    return Decimal(38, column.scale) if column.kind == "Decimal" else Int64


def mean_result(column: FeatureType | None) -> FeatureType:
    """Float64; ValueError where the column holds no numbers."""
    if column is None:
        raise ValueError("it needs a column")
    measure_of(column)
    return Float64


def total(column: FeatureType | None, result: FeatureType) -> Algebra:
    """The sum of a column. ValueError where `result` cannot be its type.

    Integers: any integer or decimal type; decimals: a decimal with as many places or more; floats: either float type.
    """
    default = sum_result(column)
    assert column is not None
    if column.is_float:
        return _of_floats(column, result, mean=False)
    whole = result.kind in LARGEST and column.kind != "Decimal"
    if not whole and (result.kind != "Decimal" or result.scale < column.scale):
        raise ValueError(f"the sum of {column} is {default}, and cannot be {result}")
    return WholeTotal(measure_of(column), result, mean=False)


def mean(column: FeatureType | None, result: FeatureType) -> Algebra:
    """The mean of a column, as either float type; ValueError for another `result`."""
    mean_result(column)
    assert column is not None
    if not result.is_float:
        raise ValueError(f"a mean is Float64 or Float32, not {result}")
    if column.is_float:
        return _of_floats(column, result, mean=True)
    return WholeTotal(measure_of(column), result, mean=True)


def _of_floats(column: FeatureType, result: FeatureType, *, mean: bool) -> FloatTotal:
    if not result.is_float:
        raise ValueError(f"the sum of {column} is Float64 or Float32, not {result}")
    return FloatTotal(measure_of(column), result, mean)


SUM_DOCS = (
    "| `Sum(c)` | Int32, Int64 | Int64 | null | `OVERFLOW` |",
    "| `Sum(c)` | Decimal(p, s) | Decimal(38, s) | null | `OVERFLOW` |",
    "| `Sum(c)` | Float32, Float64 | Float64; any NaN, or both infinities, give NaN; a zero sum is +0.0 | null | ±Infinity |",
)
MEAN_DOCS = ("| `Mean(c)` | numbers | Float64; NaN and infinities as in `Sum` | null | |",)

add_fold(FoldKind("Sum", sum_result, total, SUM_DOCS))
add_fold(FoldKind("Mean", mean_result, mean, MEAN_DOCS))

"""Sum and Mean: exact sums of integers, decimals and floats, rounded once when they are finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal as _Decimal

from featurestore.semantics.folds.algebra import Group, Place
from featurestore.semantics.folds.measures import Measure, measure_of
from featurestore.semantics.folds.packing import pack_ints, unpack_ints
from featurestore.semantics.folds.rounding import rounded
from featurestore.semantics.status import Status
from featurestore.types import Decimal, FeatureType, Float64, Int64, Scalar

__all__ = ["FloatTotal", "WholeTotal", "mean", "mean_result", "sum_result", "total"]

Whole = tuple[int, int]
Float = tuple[int, int, int, int, int]
LARGEST = {"Int32": (1 << 31) - 1, "Int64": (1 << 63) - 1}


@dataclass(frozen=True, slots=True)
class WholeTotal:
    """Of integers and decimals. The state: how many values, and their sum in units of the measure."""

    measure: Measure
    result: FeatureType
    mean: bool
    takes_null: bool = False
    zero: Whole = (0, 0)
    names: tuple[str, ...] = ("values", "sum")

    def lift(self, value: Scalar, place: Place) -> Whole:  # noqa: ARG002 - one form for every fold
        """One value."""
        return 1, self.measure.whole(value)

    def merge(self, a: Whole, b: Whole) -> Whole:
        """The sums of both."""
        return a[0] + b[0], a[1] + b[1]

    def subtract(self, a: Whole, b: Whole) -> Whole:
        """The differences."""
        return a[0] - b[0], a[1] - b[1]

    def finish(self, state: Whole) -> tuple[Scalar, Status]:
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

    def pack(self, state: Whole) -> bytes:
        """Both numbers."""
        return pack_ints(state)

    def unpack(self, data: bytes) -> Whole:
        """The state that `pack` wrote."""
        values, whole = unpack_ints(data)
        return values, whole


@dataclass(frozen=True, slots=True)
class FloatTotal:
    """Of floats. The state: how many values, NaN, +inf and -inf there are, and the exact sum of the finite values.

    The sum is an integer in units of the smallest subnormal, so that merging is adding. Packed it is what it is as a
    dyadic rational: an odd integer and an exponent.
    """

    measure: Measure
    result: FeatureType
    mean: bool
    takes_null: bool = False
    zero: Float = (0, 0, 0, 0, 0)
    names: tuple[str, ...] = ("values", "nan", "plus", "minus", "sum")

    def lift(self, value: Scalar, place: Place) -> Float:  # noqa: ARG002 - one form for every fold
        """One value."""
        if math.isfinite(value):
            return 1, 0, 0, 0, self.measure.whole(value)
        return 1, int(math.isnan(value)), int(value == math.inf), int(value == -math.inf), 0

    def merge(self, a: Float, b: Float) -> Float:
        """The sums of both."""
        return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4]

    def subtract(self, a: Float, b: Float) -> Float:
        """The differences."""
        return a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3], a[4] - b[4]

    def finish(self, state: Float) -> tuple[Scalar, Status]:
        """Null of no values; NaN where there is a NaN or both infinities; else the true value, rounded once."""
        return self._value(state), Status.PRESENT

    def values(self, states: Sequence[Float]) -> list[Scalar]:
        """See Certain."""
        return [self._value(state) for state in states]

    def _value(self, state: Float) -> float | None:
        values, nan, plus, minus, whole = state
        if not values:
            return None
        if nan or (plus and minus):
            return math.nan
        if plus or minus:
            return math.inf if plus else -math.inf
        return rounded(whole, self.measure.unit * values if self.mean else self.measure.unit, self.result)

    def pack(self, state: Float) -> bytes:
        """The counts, the odd integer and its exponent."""
        *counts, whole = state
        zeros = (whole & -whole).bit_length() - 1 if whole else 0
        return pack_ints((*counts, whole >> zeros, zeros))

    def unpack(self, data: bytes) -> Float:
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


def total(column: FeatureType | None, result: FeatureType) -> Group:
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


def mean(column: FeatureType | None, result: FeatureType) -> Group:
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

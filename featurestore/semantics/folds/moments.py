"""Var and StdDev: exact n, Σx and Σx², and one rounding at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.semantics.folds.algebra import Group, Place
from featurestore.semantics.folds.measures import Measure, measure_of
from featurestore.semantics.folds.packing import pack_ints, unpack_ints
from featurestore.semantics.folds.rounding import rounded, rounded_root
from featurestore.semantics.folds.sums import mean_result
from featurestore.semantics.status import Status
from featurestore.types import FeatureType, Scalar

__all__ = ["Moments", "finish_moments", "spread_result", "stddev", "var"]

Sums = tuple[int, int, int, int]

LONG = 1074
"""The bits of the measure of Float64."""

SPARE = 900
"""Bits that are zero in sums of float64s of 2^-122 and more, or of fewer digits; in sums of their squares twice as many."""

LOW, LOW_OF_SQUARES = (1 << SPARE) - 1, (1 << 2 * SPARE) - 1


@dataclass(frozen=True, slots=True)
class Moments:
    """The state: how many values, how many of them are NaN or infinite, Σx and Σx² of the finite ones in their units."""

    measure: Measure
    result: FeatureType
    ddof: int
    root: bool
    takes_null: bool = False
    zero: Sums = (0, 0, 0, 0)
    names: tuple[str, ...] = ("values", "unbounded", "sum", "squares")

    def lift(self, value: Scalar, place: Place) -> Sums:  # noqa: ARG002 - one form for every fold
        """One value."""
        if isinstance(value, float) and not math.isfinite(value):
            return 1, 1, 0, 0
        whole = self.measure.whole(value)
        return 1, 0, whole, whole * whole

    def merge(self, a: Sums, b: Sums) -> Sums:
        """The sums of both."""
        return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]

    def subtract(self, a: Sums, b: Sums) -> Sums:
        """The differences."""
        return a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]

    def finish(self, state: Sums) -> tuple[Scalar, Status]:
        """Null unless there are more than ddof values; NaN with any NaN or infinity."""
        return self._value(state), Status.PRESENT

    def values(self, states: Sequence[Sums]) -> list[Scalar]:
        """See Certain."""
        return [self._value(state) for state in states]

    def _value(self, state: Sums) -> float | None:
        values, unbounded, first, second = state
        if values <= self.ddof:
            return None
        return math.nan if unbounded else finish_moments(self, values, first, second)

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
    """(n·Σx² − (Σx)²) / (n·(n − ddof)), or its root, rounded once; the sums are integers in the measure's units."""
    unit = of.measure.unit
    if (
        of.measure.bits == LONG and not first & LOW and not second & LOW_OF_SQUARES
    ):  # nearly always: integers a fifth as long
        first, second, unit = first >> SPARE, second >> 2 * SPARE, unit >> SPARE
    numerator = values * second - first * first
    denominator = values * (values - of.ddof) * unit * unit
    return (rounded_root if of.root else rounded)(numerator, denominator, of.result)


def spread_result(column: FeatureType | None, ddof: int = 1) -> FeatureType:
    """Float64; ValueError where the column holds no numbers, or ddof is negative."""
    if ddof < 0:
        raise ValueError(f"ddof is 0 (population) or 1 (sample), not {ddof}")
    return mean_result(column)


def var(column: FeatureType | None, result: FeatureType, ddof: int = 1) -> Group:
    """The variance; ddof 1 of a sample, 0 of a population."""
    return _spread(column, result, ddof, root=False)


def stddev(column: FeatureType | None, result: FeatureType, ddof: int = 1) -> Group:
    """The square root of the variance."""
    return _spread(column, result, ddof, root=True)


def _spread(column: FeatureType | None, result: FeatureType, ddof: int, *, root: bool) -> Moments:
    spread_result(column, ddof)
    assert column is not None
    if not result.is_float:
        raise ValueError(f"it is Float64 or Float32, not {result}")
    return Moments(measure_of(column), result, ddof, root)

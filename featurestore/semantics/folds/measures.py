"""Turns numbers into exact integers of a common unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from featurestore.types import FeatureType

__all__ = ["Measure", "measure_of"]

SMALLEST = {"Float32": 149, "Float64": 1074}
"""The power of two of which every finite number of a float type is a multiple, negated."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A column's finite values are `whole(value) / unit`, exactly; `bits` where the unit is 2^bits, else None."""

    unit: int
    bits: int | None = None

    def whole(self, value: Any) -> int:
        """The integer of one finite value: an int, a Decimal or a float."""
        numerator, denominator = value.as_integer_ratio()
        whole: int
        if self.bits is None:
            whole = numerator if denominator == 1 == self.unit else numerator * (self.unit // denominator)
        else:
            whole = numerator << (self.bits + 1 - denominator.bit_length())
        return whole


def measure_of(column: FeatureType) -> Measure:
    """The measure of a number type; ValueError for any other type."""
    if column.kind in {"Int32", "Int64"}:
        return Measure(1)
    if column.kind == "Decimal":
        return Measure(10**column.scale)
    if column.kind in SMALLEST:
        return Measure(1 << SMALLEST[column.kind], SMALLEST[column.kind])
    raise ValueError(f"it takes integers, decimals and floats, and the column is {column}")

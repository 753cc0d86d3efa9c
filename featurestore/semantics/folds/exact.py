"""Numbers as exact integers of a common unit, and exact rationals as numbers, rounded once to a float type: half to even,
subnormals and overflow to ±inf included."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from featurestore.types import FeatureType

SMALLEST = {"Float32": 149, "Float64": 1074}
"""The power of two of which every finite number of a float type is a multiple, negated."""

SPARE_BITS = 64
"""Bits of a root, at least: more than the 55 that one later rounding to 53 needs beside the sticky bit."""


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


def rounded(numerator: int, denominator: int, of: FeatureType) -> float:
    """numerator / denominator (> 0) as the nearest Float64 or Float32; 0 is +0.0, a tiny negative one is -0.0."""
    if of.kind == "Float32":
        return _float32(numerator, denominator)
    try:
        return numerator / denominator  # integers divide correctly rounded
    except OverflowError:
        return -math.inf if numerator < 0 else math.inf


def _float32(numerator: int, denominator: int) -> float:
    sign = -1.0 if numerator < 0 else 1.0
    exponent = max(abs(numerator).bit_length() - denominator.bit_length() - 24, -149)
    quotient, rest, unit = _divided(abs(numerator), denominator, exponent)
    if quotient >= 1 << 24:  # the estimate of the exponent is one short
        exponent += 1
        quotient, rest, unit = _divided(abs(numerator), denominator, exponent)
    quotient += 2 * rest > unit or (2 * rest == unit and quotient & 1)
    if exponent > 104 or quotient << max(exponent, 0) >= 1 << 128:
        return sign * math.inf
    return sign * math.ldexp(quotient, exponent) if numerator else 0.0


def _divided(numerator: int, denominator: int, exponent: int) -> tuple[int, int, int]:
    """⌊numerator / (denominator · 2^exponent)⌋, what is left, and of what it is the rest."""
    unit = denominator << max(exponent, 0)
    quotient, rest = divmod(numerator << max(-exponent, 0), unit)
    return quotient, rest, unit


def rounded_root(numerator: int, denominator: int, of: FeatureType) -> float:
    """√(numerator / denominator), neither negative, rounded once: by an integer root that remembers whether it is exact."""
    shift = max(0, SPARE_BITS - (numerator.bit_length() - denominator.bit_length()) // 2)
    square, rest = divmod(numerator << (2 * shift), denominator)
    root = math.isqrt(square)
    sticky = rest != 0 or root * root != square
    return rounded(root | sticky, 1 << shift, of)

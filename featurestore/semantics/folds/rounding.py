"""Exact rationals rounded once to a float type: half to even, subnormals and overflow to ±inf included."""

from __future__ import annotations

import math

from featurestore.types import FeatureType

__all__ = ["rounded", "rounded_root"]

SPARE_BITS = 64
"""Bits of a root, at least: more than the 55 that one later rounding to 53 needs beside the sticky bit."""


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

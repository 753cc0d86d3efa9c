"""A column's numbers as integers over one scale, in limbs of 32 bits, so that exact sums are sums of int64.

    value[i] = Σ_j digits[j, i] · 2^(32·j + base)        |digits| < 2^32

A sum of up to 2^30 rows fits int64 limb by limb, and a window's exact sum is a difference of two prefix sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
MASK = (1 << 32) - 1
BLOCK_ROWS = 1 << 14
"""Rows worked on at once: what a processor's cache holds."""

SMALLEST = -1074
"""The power of two of the smallest double."""

MANTISSA, HIDDEN = np.uint64((1 << 52) - 1), np.uint64(1 << 52)
FAR = 1 << 20
"""Beyond every exponent."""


class Limbs(NamedTuple):
    """Exact numbers: `digits` int64[L, n], the least significant limb first, over 2^base."""

    base: int
    digits: Ints


def limbs_of_floats(values: Floats) -> Limbs:
    """Limbs of float64[n], of the sign of their value; NaN and infinities are 0.

    The highest limb holds the highest bit in use, and there are no more limbs than the lowest one needs. Every step is
    exact: a limb is cut off a double from above, and what is left is a double again.
    """
    least, most = _sizes(values)
    top = math.frexp(most)[1]
    limbs = max(1, -((max(math.frexp(least)[1] - 53, SMALLEST) - top) // 32))
    digits = np.zeros((limbs, len(values)), np.int64)
    used = 1
    for rows in _blocks(len(values)):
        rest = _finite(values[rows])
        for limb in range(1, limbs + 1):
            power = top - 32 * limb
            cut = np.trunc(_scaled(rest, -power))
            digits[limbs - limb, rows] = cut
            rest = rest - _scaled(cut, power)
            used = max(used, limb)
            if not rest.any():
                break
    return Limbs(top - 32 * used, digits[limbs - used :])


def squares_of_floats(values: Floats) -> Limbs:
    """Limbs of the exact squares of float64[n]; `base` is twice that of the values."""
    low, high = _exponents(values)
    limbs = (2 * (high - low) + 1) // 32 + 1
    digits = np.zeros((limbs, len(values)), np.int64)
    half, low_half = np.uint64(27), np.uint64((1 << 27) - 1)
    for rows in _blocks(len(values)):
        whole, shift = _over(values[rows], low)
        a, b = whole >> half, whole & low_half
        parts = ((b * b, 2 * shift), (np.uint64(2) * a * b, 2 * shift + 27), (a * a, 2 * shift + 54))
        block = np.zeros((limbs, len(whole)), np.int64)
        for limb in range(limbs):
            for part, at in parts:
                block[limb] += _digit(part, at - 32 * limb)
        digits[:, rows] = carried(block)[:limbs]
    return Limbs(2 * low, digits)


def limbs_of_ints(values: Ints) -> Limbs:
    """Two limbs of int64[n], base 0."""
    return Limbs(0, np.stack([values & MASK, values >> 32]))


def squares_of_ints(values: Ints) -> Limbs:
    """Four limbs of the exact squares of int64[n], base 0."""
    size = np.abs(values).view(np.uint64)  # of the least int64 too
    return Limbs(0, squares_of_limbs(np.stack([size & np.uint64(MASK), size >> np.uint64(32)]).view(np.int64))[:4])


def limbs_of_decimals(values: pa.Array) -> Limbs:
    """Four limbs of a decimal128 array's unscaled integers, base 0; null is 0."""
    width = 16
    data = np.frombuffer(values.buffers()[1] or b"", np.uint8)
    data = data[values.offset * width : (values.offset + len(values)) * width]
    words = data.view("<u4").reshape(len(values), 4)
    digits = words.T.astype(np.int64)
    digits[3] = words[:, 3].view("<i4")
    if values.null_count:
        digits[:, values.is_null().to_numpy(zero_copy_only=False)] = 0
    return Limbs(0, digits)


def squares_of_decimals(values: pa.Array) -> Limbs:
    """Eight limbs of the exact squares of a decimal128 array's unscaled integers, base 0; null is 0."""
    digits = limbs_of_decimals(values).digits
    size = carried(np.where(digits[3] < 0, -digits, digits))[:4]
    return Limbs(0, squares_of_limbs(size)[:8])


def carried(sums: Ints) -> Ints:
    """int64[L + 1, m] of the same numbers, all limbs in [0, 2^32) but the last, which has the sign."""
    out = np.empty((len(sums) + 1, *sums.shape[1:]), np.int64)
    carry = np.zeros(sums.shape[1:], np.int64)
    for limb, digits in enumerate(sums):
        carry = carry + digits
        out[limb] = carry & MASK
        carry >>= 32
    out[-1] = carry
    return out


def squares_of_limbs(digits: Ints) -> Ints:
    """int64[2·L + 1, m]: the exact squares of numbers whose limbs are all in [0, 2^32), carried."""
    words = digits.view(np.uint64)
    sums = np.zeros((2 * len(digits), *digits.shape[1:]), np.int64)
    for i, left in enumerate(words):
        for j, right in enumerate(words):
            product = left * right
            sums[i + j] += (product & np.uint64(MASK)).view(np.int64)
            sums[i + j + 1] += (product >> np.uint64(32)).view(np.int64)
    return carried(sums)


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK_ROWS) for start in range(0, rows, BLOCK_ROWS))


def _finite(values: Floats) -> Floats:
    return values if np.isfinite(values).all() else np.where(np.isfinite(values), values, 0.0)


def _sizes(values: Floats) -> tuple[float, float]:
    """The least and the greatest |value| that is finite and not zero; (0, 0) where there is none."""
    least, most = np.inf, 0.0
    for rows in _blocks(len(values)):
        size = np.abs(_finite(values[rows]))
        least = min(least, float(np.min(size, where=size > 0, initial=np.inf)))
        most = max(most, float(size.max()))
    return (least, most) if most else (0.0, 0.0)


def _scaled(values: Floats, power: int) -> Floats:
    """values · 2^power, in two steps where no double holds 2^power. Exact, but where the result is below 1 and no double."""
    if abs(power) <= 1022:
        return values * 2.0**power
    return values * 2.0 ** (power // 2) * 2.0 ** (power - power // 2)


def _split(values: Floats) -> tuple[Words, Ints]:
    """|value| = whole · 2^exponent, whole < 2^53; 0 for NaN and infinities."""
    bits = np.ascontiguousarray(values).view(np.uint64)
    biased = ((bits >> np.uint64(52)) & np.uint64(0x7FF)).view(np.int64)
    whole = bits & MANTISSA
    whole |= np.where(biased > 0, HIDDEN, np.uint64(0))
    whole[biased == 0x7FF] = 0
    return whole, np.maximum(biased, 1) - 1075


def _exponents(values: Floats) -> tuple[int, int]:
    """The powers of two of the lowest and the highest bit that any value has; (0, 0) where all are zero."""
    low, high = FAR, -FAR
    for rows in _blocks(len(values)):
        whole, exponent = _split(values[rows])
        lowest = whole & (~whole + np.uint64(1))
        low = min(low, int(np.where(whole > 0, exponent + _log2(lowest), FAR).min()))
        high = max(high, int(np.where(whole > 0, exponent + _log2(whole), -FAR).max()))
    return (low, high) if low < FAR else (0, 0)


def _log2(words: Words) -> Ints:
    """⌊log2⌋ of numbers from 1 to 2^53, which are doubles."""
    return (words.astype(np.float64).view(np.int64) >> 52) - 1023


def _over(values: Floats, base: int) -> tuple[Words, Ints]:
    """|value| = whole · 2^(base + shift), shift ≥ 0; exact, since no value has a bit below `base`."""
    whole, exponent = _split(values)
    shift = exponent - base
    return whole >> np.clip(-shift, 0, 63).view(np.uint64), np.maximum(shift, 0)


def _digit(whole: Words, shift: Ints) -> Ints:
    """The lowest 32 bits of ⌊whole · 2^shift⌋."""
    left, right = np.clip(shift, 0, 63).view(np.uint64), np.clip(-shift, 0, 63).view(np.uint64)
    return (((whole << left) >> right) & np.uint64(MASK)).view(np.int64)

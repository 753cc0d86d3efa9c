"""Many exact sums finished at once: what the scalar algebra's `finish` says, as arrays.

Sums come as int64[L, m], limbs of 32 bits each with its own sign, over 2^base (see `limbs`). |limb| ≤ 2^62.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa
from featurestore.semantics.folds.limbs import MASK, Ints, Limbs, carried
from featurestore.types import FeatureType

Flags = npt.NDArray[np.bool_]
BITS = {"Float64": (53, -1074), "Float32": (24, -149)}
"""Bits of the mantissa, and the power of two of the smallest subnormal."""

LARGEST_DIVISOR = 1 << 31
TEN_POWER = 9
"""Divisors below 2^31 keep a remainder and a limb within 63 bits; 10^9 is the greatest such power of ten."""


def round_sums(
    base: int, sums: Ints, of: FeatureType, *, divisor: Ints | None = None, scale: int = 0
) -> npt.NDArray[Any]:
    """Each sum / (divisor · 10^scale), rounded once to float64[m] or float32[m].

    Half to even, subnormals and overflow to ±inf included; 0 is +0.0. `divisor` is 1 to 2^31 - 1; ValueError else.
    """
    size, negative = absolute(sums)
    steps: list[Ints | np.int64] = [divisor] if divisor is not None else []
    if divisor is not None and len(divisor) and not (divisor.min() >= 1 and divisor.max() < LARGEST_DIVISOR):
        raise ValueError(f"divisors are 1 to {LARGEST_DIVISOR - 1}")
    steps += [np.int64(10 ** min(TEN_POWER, scale - done)) for done in range(0, scale, TEN_POWER)]
    return round_quotients(base, size, negative, of, steps)


def whole_sums(sums: Ints, bits: int = 64) -> tuple[Ints, Flags]:
    """Sums over 2^0 as int64[m], and where they do not fit a signed integer of `bits` (the number there is arbitrary)."""
    digits = carried(sums)
    if len(digits) == 2:
        digits = carried(digits)  # a limb more, so that two lie below the sign
    low = digits[0] | (digits[1] << 32)
    sign = low >> 63
    over = digits[-1] != sign
    for between in digits[2:-1]:
        over |= between != (sign & MASK)
    most = np.int64((1 << (bits - 1)) - 1)
    return low, over | (low > most) | (low < -most - 1)


def decimal_sums(sums: Ints, of: FeatureType, *, scale: int = 0) -> tuple[pa.Array, Flags]:
    """Sums over 10^-scale as decimals of type `of`, which has as many places or more, null where they do not fit."""
    size, negative = absolute(sums)
    for done in range(scale, of.scale, TEN_POWER):
        size = carried(size * np.int64(10 ** min(TEN_POWER, of.scale - done)))
    size = np.concatenate([size, np.zeros((max(0, 4 - len(size)), size.shape[1]), np.int64)])
    over = size[4:].any(axis=0)
    limit = 10**of.precision
    at_least = np.ones(size.shape[1], np.bool_)  # equal so far counts as not less
    for limb in range(4):
        bound = (limit >> (32 * limb)) & MASK
        at_least = (size[limb] > bound) | ((size[limb] == bound) & at_least)
    over |= at_least
    digits = carried(np.where(over, 0, np.where(negative, -size[:4], size[:4])))[:4]
    words = np.ascontiguousarray(digits.T.astype(np.uint32)).astype("<u4", copy=False)
    valid = pa.array(~over).buffers()[1]
    return pa.Array.from_buffers(of.arrow, words.shape[0], [valid, pa.py_buffer(words.tobytes())]), over


def added(a: Limbs, b: Limbs) -> Limbs:
    """The sums of both, place by place: int64[L, m] each, over the lower base."""
    base = min(a.base, b.base)
    one, two = (rebased(base, limbs.base, limbs.digits) for limbs in (a, b))
    tall = max(len(one), len(two))
    return Limbs(base, taller(one, tall) + taller(two, tall))


def on_grid(sums: Limbs) -> Limbs:
    """The same sums over a base that is a multiple of 32, all limbs in [0, 2^32) but the last, which has the sign."""
    return Limbs(sums.base // 32 * 32, rebased(sums.base // 32 * 32, sums.base, sums.digits))


def with_specials(rounded: npt.NDArray[Any], nan: Ints, plus: Ints, minus: Ints) -> npt.NDArray[Any]:
    """The sums or means of all values, from those of the finite ones and the counts of NaN, +inf and -inf beside them."""
    out = np.where(plus > 0, rounded.dtype.type(np.inf), rounded)
    out = np.where(minus > 0, rounded.dtype.type(-np.inf), out)
    return np.where((nan > 0) | ((plus > 0) & (minus > 0)), rounded.dtype.type(np.nan), out)


def python_sums(sums: Ints) -> list[int]:
    """Each sum, over its 2^base, as a Python integer."""
    totals = [0] * sums.shape[1]
    for digits in sums[::-1].tolist():
        totals = [(total << 32) + digit for total, digit in zip(totals, digits, strict=True)]
    return totals


def rebased(base: int, own: int, sums: Ints) -> Ints:
    """The same sums over 2^base, which is no more than 2^own."""
    limbs, bits = divmod(own - base, 32)
    digits = carried(carried(sums) << bits)
    return np.concatenate([np.zeros((limbs, digits.shape[1]), np.int64), digits])


def taller(digits: Ints, limbs: int) -> Ints:
    """The same sums in so many limbs, of which those above are 0."""
    return np.concatenate([digits, np.zeros((limbs - len(digits), digits.shape[1]), np.int64)])


def absolute(sums: Ints) -> tuple[Ints, Flags]:
    """The sizes of the sums, all limbs in [0, 2^32), and which are negative."""
    negative = carried(sums)[-1] < 0
    return carried(np.where(negative, -sums, sums)), negative


def round_quotients(
    base: int, size: Ints, negative: Flags, of: FeatureType, steps: list[Ints | np.int64]
) -> npt.NDArray[Any]:
    """size / Π steps, rounded once. Each division leaves a floor, and a remainder that is remembered as not zero."""
    # A quotient loses at most 31 bits by each step, and 64 bits of it are needed beside what is remembered.
    below = len(steps) + 2
    digits = np.concatenate([np.zeros((below, size.shape[1]), np.int64), size])
    sticky = np.zeros(size.shape[1], np.bool_)
    for step in steps:
        rest = np.zeros(size.shape[1], np.int64)
        for limb in range(len(digits) - 1, -1, -1):
            whole = (rest << 32) | digits[limb]
            digits[limb] = whole // step
            rest = whole - digits[limb] * step
        sticky |= rest != 0
    top, exponent, sticky = _leading(digits, sticky)
    nearest = _nearest(top, exponent + base - 32 * below, sticky, of)
    return np.where(negative, -nearest, nearest)


def _leading(digits: Ints, sticky: Flags) -> tuple[npt.NDArray[np.uint64], Ints, Flags]:
    """The 64 bits of each number from its highest on, the power of two of the lowest of them, and what lies below."""
    limbs, rows = digits.shape
    used = digits != 0
    highest = np.maximum(limbs - 1 - np.argmax(used[::-1], axis=0), 2)
    column = np.arange(rows)
    words = digits.view(np.uint64)
    high, middle, low = (words[highest - back, column] for back in range(3))
    seen = np.cumsum(used, axis=0, dtype=np.int64)
    sticky = sticky | ((highest > 2) & (seen[np.maximum(highest - 3, 0), column] > 0))
    # The highest limb is zero only in numbers of at most two limbs, none of which lie below the binary point.
    zeros = 32 - np.frexp(high.astype(np.float64))[1].astype(np.int64)
    up, down = np.minimum(zeros, 32).view(np.uint64), np.maximum(32 - zeros, 0).view(np.uint64)
    top = (((high << np.uint64(32)) | middle) << up) | (low >> down)
    sticky |= ((low << up) & np.uint64(MASK)) != 0
    return top, 32 * (highest - 1) - zeros, sticky


def _nearest(top: npt.NDArray[np.uint64], exponent: Ints, sticky: Flags, of: FeatureType) -> npt.NDArray[Any]:
    """(top + what lies below it) · 2^exponent, rounded; `top` has its highest bit set, or is 0."""
    bits, smallest = BITS[of.kind]
    drop = np.maximum(64 - bits, smallest - exponent)
    top = top | sticky.astype(np.uint64)
    spare = np.clip(drop - 62, 0, 63).view(
        np.uint64
    )  # so far below the smallest subnormal that shifts would be too wide
    lost = (top & ((np.uint64(1) << spare) - np.uint64(1))) != 0
    top = (top >> spare) | lost.astype(np.uint64)
    by = np.minimum(drop, 62).view(np.uint64)
    whole, rest, half = top >> by, top & ((np.uint64(1) << by) - np.uint64(1)), np.uint64(1) << (by - np.uint64(1))
    whole += ((rest > half) | ((rest == half) & ((whole & np.uint64(1)) == 1))).astype(np.uint64)
    with np.errstate(over="ignore"):
        return np.ldexp(whole.astype(np.float64), (exponent + drop).astype(np.int32)).astype(of.numpy)

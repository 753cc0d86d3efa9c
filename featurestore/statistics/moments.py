"""Mean and standard deviation of numbers: from exact sums, rounded once, or quickly, in doubles."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.semantics.folds.columnar import python_sums
from featurestore.semantics.folds.exact import rounded, rounded_root
from featurestore.semantics.folds.limbs import (
    BLOCK_ROWS,
    Ints,
    Limbs,
    limbs_of_floats,
    limbs_of_ints,
    squares_of_floats,
    squares_of_ints,
)
from featurestore.types import Float64

PIECE_BITS = 16
"""Bits of a count that a limb is multiplied with: the sum of a block of such products stays below 2^63."""


class ExactMoments:
    """What numbers add up to, and their squares; the same whatever their order and however they are cut into parts."""

    def __init__(self) -> None:
        self.values = 0
        self._sum = self._squares = Fraction(0)

    def add(self, values: npt.NDArray[Any], counts: Ints) -> None:
        """Take each of finite values, int64[n] or float64[n], so many times."""
        is_float = values.dtype.kind == "f"
        self.values += sum(counts.tolist())
        self._sum += _total((limbs_of_floats if is_float else limbs_of_ints)(values), counts)
        self._squares += _total((squares_of_floats if is_float else squares_of_ints)(values), counts)

    def mean(self) -> float | None:
        """The mean; None of no values."""
        return rounded(self._sum.numerator, self._sum.denominator * self.values, Float64) if self.values else None

    def deviation(self) -> float | None:
        """The standard deviation of these values, and of no population that they are a sample of; None of no values."""
        if not self.values:
            return None
        variance = self._squares / self.values - (self._sum / self.values) ** 2
        return rounded_root(variance.numerator, variance.denominator, Float64)


def _total(limbs: Limbs, counts: Ints) -> Fraction:
    total = 0
    for start in range(0, len(counts), BLOCK_ROWS):
        digits, times = limbs.digits[:, start : start + BLOCK_ROWS], counts[start : start + BLOCK_ROWS]
        for low in range(0, 64, PIECE_BITS):
            piece = (times >> low) & ((1 << PIECE_BITS) - 1)
            if piece.any():
                (part,) = python_sums((digits * piece).sum(axis=1, keepdims=True))
                total += part << low
    return Fraction(total) * Fraction(2) ** limbs.base


LEAST_EXPONENT = -1073
"""The exponent of the least double: 0.5 * 2^-1073."""

PLAIN_EXPONENT = 1000
"""The exponent of two below which a power and its reciprocal are doubles."""

BELOW_ONE = 1 - 2.0**-53
"""No deviation is greater than the greatest value, however sums are rounded."""


class QuickMoments:
    """The same in doubles, of values that come in blocks: a hundredth of the time, right to some 12 digits of the greatest value.

    Blocks are summed as numpy sums (pairwise) and joined by the update of T. Chan, G. Golub and R. LeVeque (1979). Values are scaled by a power of two, so
    that no square is too large or too small.
    """

    def __init__(self) -> None:
        self.values = 0
        self._exponent = 0
        self._mean = self._squares = 0.0  # of values / 2^exponent

    def add(self, values: npt.NDArray[Any], least: float, greatest: float) -> None:
        """Take finite values, of which these are the least and the greatest; there is one."""
        numbers = values.astype(np.float64, copy=False)
        farthest = max(abs(float(least)), abs(float(greatest)))
        exponent = math.frexp(farthest)[1] if farthest else LEAST_EXPONENT  # zeros take the scale of what they meet
        if PLAIN_EXPONENT > exponent > -PLAIN_EXPONENT:
            numbers = numbers * 2.0**-exponent
        else:
            numbers = np.ldexp(numbers, -exponent)
        mean = float(numbers.mean())
        squares = float(np.square(numbers - mean).sum())
        self._join(len(numbers), mean, squares, exponent)

    def _join(self, values: int, mean: float, squares: float, exponent: int) -> None:
        if not self.values:
            self.values, self._mean, self._squares, self._exponent = values, mean, squares, exponent
            return
        common = max(exponent, self._exponent)
        own, other = self._exponent - common, exponent - common
        before, squares_before = math.ldexp(self._mean, own), math.ldexp(self._squares, 2 * own)
        mean, squares = math.ldexp(mean, other), math.ldexp(squares, 2 * other)
        total, apart = self.values + values, mean - before
        self._mean = before + apart * (values / total)
        self._squares = squares_before + squares + apart * apart * (self.values / total) * values
        self.values, self._exponent = total, common

    def mean(self) -> float | None:
        """The mean; None of no values."""
        return math.ldexp(self._mean, self._exponent) if self.values else None

    def deviation(self) -> float | None:
        """The standard deviation of these values; None of no values."""
        if not self.values:
            return None
        return math.ldexp(min(math.sqrt(self._squares / self.values), BELOW_ONE), self._exponent)

"""Mean and standard deviation of numbers: from exact sums, rounded once, or quickly, in doubles."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

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

PLAIN_EXPONENT = 400
"""The exponent of two below which squares, and what very many of them add up to, are doubles with all digits: values need not be scaled."""

BELOW_ONE = 1 - 2.0**-53
"""No deviation is greater than the greatest value, however sums are rounded."""


def are_plain(values: npt.NDArray[np.float64] | np.float64) -> npt.NDArray[np.bool_]:
    """Whether values need not be scaled; infinities and NaN would not help."""
    size = np.abs(values)
    found: npt.NDArray[np.bool_] = (size < 2.0**PLAIN_EXPONENT) & ((size > 2.0**-PLAIN_EXPONENT) | (size == 0))
    return found


def _exponent(farthest: float) -> int:
    """The power of two that values are scaled by; zeros take the scale of what they meet."""
    return math.frexp(farthest)[1] if farthest else LEAST_EXPONENT


class QuickMoments(NamedTuple):
    """The same in doubles, of values that come in blocks: a hundredth of the time, right to some 12 digits of the greatest value.

    Blocks are summed as numpy sums (pairwise) and joined by the update of T. Chan, G. Golub and R. LeVeque (1979). Values are scaled by a power of two, so
    that no square is too large or too small.
    """

    values: int = 0
    exponent: int = 0
    scaled_mean: float = 0.0
    """Of the values / 2^exponent."""
    scaled_squares: float = 0.0
    """What the squares of their distances from it add up to."""

    @classmethod
    def of(cls, values: npt.NDArray[Any], least: float, greatest: float) -> QuickMoments:
        """Those of finite values, of which these are the least and the greatest; there is one."""
        numbers, count = values.astype(np.float64, copy=False), len(values)
        farthest = max(abs(float(least)), abs(float(greatest)))
        scale = 0
        if not are_plain(np.float64(farthest)):
            scale = _exponent(farthest)
            numbers, farthest = np.ldexp(numbers, -scale), math.ldexp(farthest, -scale)
        mean = float(np.add.reduce(numbers)) / count
        apart = numbers - mean
        squares = float(np.add.reduce(np.multiply(apart, apart, out=apart)))
        found = cls._of_sums(count, mean, squares, farthest)
        return found._replace(exponent=found.exponent + scale) if scale else found

    @classmethod
    def of_rows(cls, values: npt.NDArray[Any], farthest: npt.NDArray[np.float64]) -> list[QuickMoments]:
        """Those of each row of a matrix of values that are plain (see `are_plain`). farthest: from 0, of each."""
        numbers, count = values.astype(np.float64, copy=False), values.shape[1]
        means = np.add.reduce(numbers, axis=1) / count
        apart = numbers - means[:, np.newaxis]
        squares = np.add.reduce(np.multiply(apart, apart, out=apart), axis=1)
        rows = zip(means.tolist(), squares.tolist(), farthest.tolist(), strict=True)
        return [cls._of_sums(count, *row) for row in rows]

    @classmethod
    def _of_sums(cls, count: int, mean: float, squares: float, farthest: float) -> QuickMoments:
        exponent = _exponent(farthest)
        return cls(count, exponent, math.ldexp(mean, -exponent), math.ldexp(squares, -2 * exponent))

    def plus(self, more: QuickMoments) -> QuickMoments:
        """Those of both together."""
        if not self.values or not more.values:
            return self if self.values else more
        common = max(more.exponent, self.exponent)
        own, other = self.exponent - common, more.exponent - common
        before, squares_before = math.ldexp(self.scaled_mean, own), math.ldexp(self.scaled_squares, 2 * own)
        mean, squares = math.ldexp(more.scaled_mean, other), math.ldexp(more.scaled_squares, 2 * other)
        total, apart = self.values + more.values, mean - before
        squares = squares_before + squares + apart * apart * (self.values / total) * more.values
        return QuickMoments(total, common, before + apart * (more.values / total), squares)

    def mean(self) -> float | None:
        """The mean; None of no values."""
        return math.ldexp(self.scaled_mean, self.exponent) if self.values else None

    def deviation(self) -> float | None:
        """The standard deviation of these values; None of no values."""
        if not self.values:
            return None
        return math.ldexp(min(math.sqrt(self.scaled_squares / self.values), BELOW_ONE), self.exponent)

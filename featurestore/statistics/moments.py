"""Mean and standard deviation of numbers that come with how often each is there: exact sums, rounded once."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

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

"""What a column adds up to over ranges of its rows: counts, sums, sums of squares and extremes, of which folds are finished.

The sums of rows and of tiles of other rows add up to those of all of them, to the bit; a tile is a row whose sums are given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa, pc
from featurestore.query.windows.filtered_rows import Bits, Ints
from featurestore.semantics.folds.limbs import (
    Limbs,
    limbs_of_decimals,
    limbs_of_floats,
    limbs_of_ints,
    squares_of_decimals,
    squares_of_floats,
    squares_of_ints,
)
from featurestore.types import FeatureType

GREATEST = np.iinfo(np.int64).max

INTEGERS = {"Bool": "uint8", "Int32": "int32", "Int64": "int64", "Date": "int32", "Timestamp": "int64"}
"""The integers that the values of a type are, by Arrow's names."""


class Addends:
    """What each row of a column adds to partial sums, by place, each made when it is first asked for. See `PartialSums`."""

    def __init__(self, values: pa.Array, of: FeatureType) -> None:
        self._values, self._of = values, of

    @property
    def counts(self) -> Ints | None:
        """How many values each row stands for; None: one, or none where it is null, which no filtered rows hold."""
        return None

    @cached_property
    def _numbers(self) -> npt.NDArray[Any]:
        """The values as int64 or float64, 0 for null."""
        values = self._values.cast(pa.float64() if self._of.is_float else pa.int64())
        filled: npt.NDArray[Any] = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
        return filled

    @property
    def _decimals(self) -> pa.Array:
        return self._values.combine_chunks() if isinstance(self._values, pa.ChunkedArray) else self._values

    @cached_property
    def sums(self) -> Limbs:
        """The value, in limbs; 0 where it is not finite."""
        if self._of.kind == "Decimal":
            return limbs_of_decimals(self._decimals)
        return (limbs_of_floats if self._of.is_float else limbs_of_ints)(self._numbers)

    @cached_property
    def squares(self) -> Limbs:
        """Its square, in limbs."""
        if self._of.kind == "Decimal":
            return squares_of_decimals(self._decimals)
        return (squares_of_floats if self._of.is_float else squares_of_ints)(self._numbers)

    @cached_property
    def special(self) -> Ints | None:
        """int64[3, n]: whether it is NaN, inf, -inf; None where all are finite."""
        if not self._of.is_float or np.isfinite(self._numbers).all():
            return None
        numbers = self._numbers
        return np.stack([np.isnan(numbers), numbers == np.inf, numbers == -np.inf]).astype(np.int64)

    @cached_property
    def least(self) -> Ints:
        """Its code, in the order of the values: numbers are their own codes, the same in every column; other values are ranked."""
        if self._of.is_float:
            return _ordered(self._numbers.view(np.int64))
        if self._of.kind in INTEGERS:
            whole = self._values.cast(INTEGERS[self._of.kind]).cast(pa.int64())
            codes: Ints = whole.fill_null(0).to_numpy(zero_copy_only=False)
            return codes
        ranks: Ints = pc.rank(self._values, sort_keys="ascending", tiebreaker="dense").to_numpy().astype(np.int64) - 1
        return ranks

    @cached_property
    def greatest(self) -> Ints:
        """The complement of its code."""
        return ~self.least

    @cached_property
    def decode(self) -> Callable[[Ints, Bits], pa.Array]:
        """The values that codes stand for, null where the mask is."""
        of = self._of
        if of.is_float:
            return lambda codes, none: pa.array(_ordered(codes).view(np.float64), mask=none)
        if of.kind in INTEGERS:
            whole = INTEGERS[of.kind]
            return lambda codes, none: pa.array(np.where(none, 0, codes), mask=none).cast(whole).cast(of.arrow)
        holders = np.zeros_like(self.least)
        holders[self.least] = np.arange(len(self.least))
        return lambda codes, none: self._values.take(pa.array(holders[np.where(none, 0, codes)], mask=none))


def _ordered(bits: Ints) -> Ints:
    """A double's bits as an integer of its order, and back: negative ones the other way round, -0.0 just below 0.0."""
    return bits ^ ((bits >> 63) & GREATEST)

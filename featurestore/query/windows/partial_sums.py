"""What counts, sums, moments and extremes are made of: totals of a column over ranges of its rows.

Totals of rows and of tiles of other rows add up to those of all of them, to the bit; a tile is a row whose totals are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.query.windows.filtered_rows import Bits, FoldInput, Ints, climb, take
from featurestore.query.windows.ranges import Range
from featurestore.semantics.folds.columnar import (
    Limbs,
    added,
    limbs_of_decimals,
    limbs_of_floats,
    limbs_of_ints,
    squares_of_decimals,
    squares_of_floats,
    squares_of_ints,
)
from featurestore.semantics.windows import Span
from featurestore.types import FeatureType

__all__ = ["GREATEST", "NEEDS", "WHOLE", "Codes", "PartialSums", "codes_of", "merged", "partial_sums"]

NEEDS: dict[str, tuple[str, ...]] = {
    "Count": (),
    "Sum": ("sums", "special"),
    "Mean": ("sums", "special"),
    "Var": ("sums", "squares", "special"),
    "StdDev": ("sums", "squares", "special"),
    "Min": ("least",),
    "Max": ("greatest",),
}
"""The folds that are finished from totals, and which of them beside the number of values."""

T = TypeVar("T")
GREATEST = np.iinfo(np.int64).max


class PartialSums(NamedTuple):
    """Of one column for m requests; None: not asked for, or of `special`, that all values are finite.

    values: how many there are. sums, squares: exact, of the finite ones. special: int64[3, m], how many are NaN, inf and
    -inf. least: the least code (see `Codes`). greatest: the least of ~code. GREATEST where there is no value.
    """

    values: Ints
    sums: Limbs | None = None
    squares: Limbs | None = None
    special: Ints | None = None
    least: Ints | None = None
    greatest: Ints | None = None


def partial_sums(column: FoldInput, ranges: Sequence[Range], needs: Sequence[str], span: Span) -> PartialSums:
    """The totals of a column for each request; `ranges` are parts of the column's strands, the same ones for one span.

    Each is made once for all folds of one column and span.
    """
    made = {name: column.keep((name, span), lambda n=name: PARTS[n](column, ranges)) for name in needs}  # type: ignore[misc]
    return PartialSums(column.keep(("counts", span), lambda: _counts(column, ranges)), **made)


def merged(a: PartialSums, b: PartialSums) -> PartialSums:
    """The totals of the rows of both."""
    return PartialSums(
        a.values + b.values,
        _both(added, a.sums, b.sums),
        _both(added, a.squares, b.squares),
        _both(np.add, a.special, b.special),
        _both(np.minimum, a.least, b.least),
        _both(np.minimum, a.greatest, b.greatest),
    )


def _both(join: Callable[[T, T], T], a: T | None, b: T | None) -> T | None:
    """Both joined; of what only one has, that."""
    return a if b is None else b if a is None else join(a, b)


def _counts(column: FoldInput, ranges: Sequence[Range]) -> Ints:
    if column.counts is not None:
        counted: Ints = column.sums("counts", column.counts[np.newaxis], ranges)[0]
        return counted
    total: Ints = sum((part.high - part.low for part in ranges), np.zeros(len(ranges[0].low), np.int64))
    return total


def _sums(column: FoldInput, ranges: Sequence[Range], *, squared: bool = False) -> Limbs:
    what = "squares" if squared else "sums"
    limbs = column.keep(what, lambda: _limbs(column, squared=squared))
    return Limbs(limbs.base, column.sums(what, limbs.digits, ranges))


def _specials(column: FoldInput, ranges: Sequence[Range]) -> Ints | None:
    if not column.of.is_float:
        return None
    marks = column.keep("special", lambda: _special(column))
    return None if marks is None else column.sums("special", marks, ranges)


def _least(column: FoldInput, ranges: Sequence[Range]) -> Ints:
    return _extreme(column, column.keep("least", lambda: codes_of(column).codes), "least", ranges)


def _greatest(column: FoldInput, ranges: Sequence[Range]) -> Ints:
    return _extreme(column, column.keep("greatest", lambda: ~codes_of(column).codes), "greatest", ranges)


def _extreme(column: FoldInput, codes: Ints, what: str, ranges: Sequence[Range]) -> Ints:
    best = np.full(len(ranges[0].low), GREATEST, np.int64)
    for number, part in enumerate(ranges):
        best = np.minimum(best, climb(column.tree(what, codes, number), part, empty=GREATEST))
    return best


PARTS: dict[str, Callable[[FoldInput, Sequence[Range]], Any]] = {
    "sums": _sums,
    "squares": lambda column, ranges: _sums(column, ranges, squared=True),
    "special": _specials,
    "least": _least,
    "greatest": _greatest,
}


def _limbs(column: FoldInput, *, squared: bool) -> Limbs:
    """Each value, or its square, in limbs."""
    if column.of.kind == "Decimal":
        values = column.values.combine_chunks() if isinstance(column.values, pa.ChunkedArray) else column.values
        return squares_of_decimals(values) if squared else limbs_of_decimals(values)
    if column.of.is_float:
        return squares_of_floats(_numbers(column)) if squared else limbs_of_floats(_numbers(column))
    return squares_of_ints(_numbers(column)) if squared else limbs_of_ints(_numbers(column))


def _numbers(column: FoldInput) -> npt.NDArray[Any]:
    """The values by place as int64 or float64, 0 for null."""
    values = column.values.cast(pa.float64() if column.of.is_float else pa.int64())
    filled: npt.NDArray[Any] = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
    return filled


def _special(column: FoldInput) -> Ints | None:
    """Where the values are NaN, inf, -inf: int64[3, n]; None where all are finite."""
    values = _numbers(column)
    if np.isfinite(values).all():
        return None
    return np.stack([np.isnan(values), values == np.inf, values == -np.inf]).astype(np.int64)


class Codes(NamedTuple):
    """Integers by place in the order of a column's values, and the values that codes stand for (null where the mask is)."""

    codes: Ints
    values: Callable[[Ints, Bits], pa.Array]


def codes_of(column: FoldInput) -> Codes:
    """Numbers are their own codes, the same in every column; other values are ranked. The code of a null is arbitrary."""
    codes: Codes = column.keep("codes", lambda: _codes(column.values, column.of))
    return codes


def _codes(values: pa.Array, of: FeatureType) -> Codes:
    if of.is_float:
        bits = values.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False).view(np.int64)
        return Codes(_ordered(bits), lambda codes, none: pa.array(_ordered(codes).view(np.float64), mask=none))
    if of.kind in WHOLE:
        whole = WHOLE[of.kind]
        numbers = values.cast(whole).cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return Codes(
            numbers, lambda codes, none: pa.array(np.where(none, 0, codes), mask=none).cast(whole).cast(of.arrow)
        )
    rank = pc.rank(values, sort_keys="ascending", tiebreaker="dense").to_numpy().astype(np.int64) - 1
    holders = np.zeros(int(rank.max(initial=-1)) + 1, np.int64)
    holders[rank] = np.arange(len(rank))
    return Codes(rank, lambda codes, none: take(values, np.where(none, -1, holders[np.where(none, 0, codes)])))


WHOLE = {"Bool": pa.uint8(), "Int32": pa.int32(), "Int64": pa.int64(), "Date": pa.int32(), "Timestamp": pa.int64()}
"""The integers that the values of a type are."""


def _ordered(bits: Ints) -> Ints:
    """A double's bits as an integer of its order, and back: negative ones the other way round, -0.0 just below 0.0."""
    return bits ^ ((bits >> 63) & GREATEST)

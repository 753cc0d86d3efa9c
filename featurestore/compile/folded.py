"""Each fold over ranges of rows: the columnar form of the table of folds, a function a row.

What a fold means stands in `featurestore.semantics.folds`; a fold that is not named in FORMS is computed from that meaning
itself, by merging states along a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.compile.ranges import Range
from featurestore.compile.strands import Bits, Column, Ints, climb, newest, oldest, take
from featurestore.semantics.folds import Algebra
from featurestore.semantics.folds.columnar import (
    Limbs,
    decimal_sums,
    limbs_of_decimals,
    limbs_of_floats,
    limbs_of_ints,
    moments,
    round_sums,
    squares_of_decimals,
    squares_of_floats,
    squares_of_ints,
    whole_sums,
    with_specials,
)
from featurestore.semantics.folds.moments import Moments
from featurestore.semantics.folds.picked import LastRows, Rows
from featurestore.semantics.status import Status
from featurestore.semantics.view import ResolvedFeature, algebra_of
from featurestore.types import FeatureType

__all__ = ["Folded", "fold"]


class Folded(NamedTuple):
    """A feature's values for n requests, the requests where the result's type cannot hold the value, and of a fold that
    picks rows the places of these, int64[n, rows], -1 where there are fewer."""

    values: pa.Array
    overflow: Bits | None = None
    picked: Ints | None = None


def fold(feature: ResolvedFeature, column: Column, ranges: Sequence[Range]) -> Folded:
    """The feature for each request; `ranges` are parts of the column's strands."""
    form = FORMS.get(feature.fold.kind)
    return form(feature, column, ranges) if form is not None else _merged(feature, column, ranges)


def _counts(ranges: Sequence[Range]) -> Ints:
    total: Ints = sum((part.high - part.low for part in ranges), np.zeros(len(ranges[0].low), np.int64))
    return total


def _count(_: ResolvedFeature, __: Column, ranges: Sequence[Range]) -> Folded:
    return Folded(pa.array(_counts(ranges)))


class _Totals(NamedTuple):
    """Exact sums of a column for each request, the counts of all values, and those of NaN, inf and -inf where there are any."""

    sums: Limbs
    values: Ints
    special: Ints | None


def _totals(feature: ResolvedFeature, column: Column, ranges: Sequence[Range], *, squared: bool = False) -> _Totals:
    """Made once for all features of one column and span."""
    return column.keep(("totals", squared, feature.span), lambda: _summed(column, ranges, squared=squared))


def _summed(column: Column, ranges: Sequence[Range], *, squared: bool) -> _Totals:
    what = "squares" if squared else "values"
    limbs = column.keep(what, lambda: _limbs(column, squared=squared))
    special = None
    if column.of.is_float:
        marks = column.keep("special", lambda: _special(column))
        special = column.sums("special", marks, ranges) if marks is not None else None
    return _Totals(Limbs(limbs.base, column.sums(what, limbs.digits, ranges)), _counts(ranges), special)


def _limbs(column: Column, *, squared: bool) -> Limbs:
    """Each value, or its square, in limbs."""
    if column.of.kind == "Decimal":
        values = column.values.combine_chunks() if isinstance(column.values, pa.ChunkedArray) else column.values
        return squares_of_decimals(values) if squared else limbs_of_decimals(values)
    if column.of.is_float:
        return squares_of_floats(_numbers(column)) if squared else limbs_of_floats(_numbers(column))
    return squares_of_ints(_numbers(column)) if squared else limbs_of_ints(_numbers(column))


def _numbers(column: Column) -> npt.NDArray[Any]:
    """The values by place as int64 or float64, 0 for null."""
    values = column.values.cast(pa.float64() if column.of.is_float else pa.int64())
    filled: npt.NDArray[Any] = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
    return filled


def _special(column: Column) -> Ints | None:
    """Where the values are NaN, inf, -inf: int64[3, n]; None where all are finite."""
    values = _numbers(column)
    if np.isfinite(values).all():
        return None
    return np.stack([np.isnan(values), values == np.inf, values == -np.inf]).astype(np.int64)


def _sum(feature: ResolvedFeature, column: Column, ranges: Sequence[Range]) -> Folded:
    totals, of = _totals(feature, column, ranges), feature.type
    empty = totals.values == 0
    if column.of.is_float:
        rounded = round_sums(totals.sums.base, totals.sums.digits, of)
        return Folded(_floats(rounded, totals, empty, of))
    if of.kind == "Decimal":
        values, overflow = decimal_sums(totals.sums.digits, of, scale=column.of.scale)
        return Folded(pc.if_else(pa.array(empty), pa.scalar(None, of.arrow), values), overflow & ~empty)
    whole, overflow = whole_sums(totals.sums.digits, 32 if of.kind == "Int32" else 64)
    overflow &= ~empty
    none = empty | overflow
    return Folded(pa.array(np.where(none, 0, whole), mask=none).cast(of.arrow), overflow)


def _mean(feature: ResolvedFeature, column: Column, ranges: Sequence[Range]) -> Folded:
    totals = _totals(feature, column, ranges)
    empty = totals.values == 0
    rounded = round_sums(
        totals.sums.base, totals.sums.digits, feature.type, divisor=np.maximum(totals.values, 1), scale=column.of.scale
    )
    return Folded(_floats(rounded, totals, empty, feature.type))


def _moment(feature: ResolvedFeature, column: Column, ranges: Sequence[Range]) -> Folded:
    algebra = algebra_of(feature)
    assert isinstance(algebra, Moments)
    totals, squares = _totals(feature, column, ranges), _totals(feature, column, ranges, squared=True)
    values = moments(algebra, totals.values, totals.sums, squares.sums)
    if totals.special is not None:
        values = np.where(totals.special.any(axis=0), values.dtype.type(np.nan), values)
    return Folded(pa.array(values, feature.type.arrow, mask=totals.values <= algebra.ddof))


def _floats(rounded: npt.NDArray[Any], totals: _Totals, empty: Bits, of: FeatureType) -> pa.Array:
    values = rounded if totals.special is None else with_specials(rounded, *totals.special)
    return pa.array(values, of.arrow, mask=empty)


GREATEST = np.iinfo(np.int64).max


class _Codes(NamedTuple):
    """Integers by place in the order of a column's values, and the values that codes stand for (null where the mask is)."""

    codes: Ints
    values: Callable[[Ints, Bits], pa.Array]


def _extreme(feature: ResolvedFeature, column: Column, ranges: Sequence[Range]) -> Folded:
    codes, values = column.keep("codes", lambda: _codes(column.values, column.of))
    greatest = feature.fold.kind == "Max"
    turned = column.keep("turned", lambda: ~codes) if greatest else codes
    best = np.full(len(ranges[0].low), GREATEST, np.int64)
    for number, part in enumerate(ranges):
        best = np.minimum(best, climb(column.tree(feature.fold.kind, turned, number), part, empty=GREATEST))
    return Folded(values(~best if greatest else best, _counts(ranges) == 0))


def _codes(values: pa.Array, of: FeatureType) -> _Codes:
    """Numbers are their own codes; other values are ranked. The code of a null is arbitrary."""
    if of.is_float:
        bits = values.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False).view(np.int64)
        return _Codes(_ordered(bits), lambda codes, none: pa.array(_ordered(codes).view(np.float64), mask=none))
    if of.kind in WHOLE:
        whole = WHOLE[of.kind]
        numbers = values.cast(whole).cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return _Codes(
            numbers, lambda codes, none: pa.array(np.where(none, 0, codes), mask=none).cast(whole).cast(of.arrow)
        )
    rank = pc.rank(values, sort_keys="ascending", tiebreaker="dense").to_numpy().astype(np.int64) - 1
    holders = np.zeros(int(rank.max(initial=-1)) + 1, np.int64)
    holders[rank] = np.arange(len(rank))
    return _Codes(rank, lambda codes, none: take(values, np.where(none, -1, holders[np.where(none, 0, codes)])))


WHOLE = {"Bool": pa.uint8(), "Int32": pa.int32(), "Int64": pa.int64(), "Date": pa.int32(), "Timestamp": pa.int64()}
"""The integers that the values of a type are."""


def _ordered(bits: Ints) -> Ints:
    """A double's bits as an integer of its order, and back: negative ones the other way round, -0.0 just below 0.0."""
    return bits ^ ((bits >> 63) & GREATEST)


def _newest(_: ResolvedFeature, column: Column, ranges: Sequence[Range]) -> Folded:
    places = newest(column.strands, ranges, 1)
    return Folded(take(column.values, places[:, 0]), picked=places)


def _oldest(_: ResolvedFeature, column: Column, ranges: Sequence[Range]) -> Folded:
    places = oldest(column.strands, ranges)
    return Folded(take(column.values, places), picked=places[:, np.newaxis])


def _last_n(feature: ResolvedFeature, column: Column, ranges: Sequence[Range]) -> Folded:
    places = newest(column.strands, ranges, feature.fold.parameters["n"])
    there = places >= 0
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    values = column.values.take(pa.array(places[there]))
    return Folded(pa.ListArray.from_arrays(pa.array(offsets), values, type=feature.type.arrow), picked=places)


def _merged(feature: ResolvedFeature, column: Column, ranges: Sequence[Range]) -> Folded:
    """The fold by its own algebra: the states of a range are merged along a tree, each range of rows once."""
    algebra = algebra_of(feature)
    name = (feature.fold.kind, tuple(feature.fold.parameters.items()))
    trees = [column.states(algebra, name, number) for number in range(len(column.strands))]
    bounds = np.stack([edge for part in ranges for edge in part], axis=1)
    distinct, inverse = np.unique(bounds, axis=0, return_inverse=True)
    states = [_state(algebra, trees, row) for row in distinct.tolist()]
    finished = [algebra.finish(state) for state in states]
    values = pa.array([value for value, _ in finished], feature.type.arrow)
    overflow = np.array([status == Status.OVERFLOW for _, status in finished], np.bool_)
    picked = _picked(states, algebra.n)[inverse] if isinstance(algebra, LastRows) else None
    return Folded(values.take(pa.array(inverse)), overflow[inverse], picked)


def _picked(states: Sequence[Rows], n: int) -> Ints:
    """The places of the rows in each state."""
    places = np.full((len(states), n), -1, np.int64)
    for number, state in enumerate(states):
        places[number, : len(state)] = [place for place, _ in state]
    return places


def _state(algebra: Algebra, trees: Sequence[list[list[Any]]], bounds: Sequence[int]) -> Any:
    state = algebra.zero
    for number, levels in enumerate(trees):
        low, high = bounds[2 * number], bounds[2 * number + 1]
        for level in levels:
            if low >= high:
                break
            if low & 1:
                state, low = algebra.merge(state, level[low]), low + 1
            if high & 1:
                high -= 1
                state = algebra.merge(state, level[high])
            low, high = low >> 1, high >> 1
    return state


FORMS: dict[str, Callable[[ResolvedFeature, Column, Sequence[Range]], Folded]] = {
    "Count": _count,
    "Sum": _sum,
    "Mean": _mean,
    "Var": _moment,
    "StdDev": _moment,
    "Min": _extreme,
    "Max": _extreme,
    "First": _oldest,
    "Latest": _newest,
    "LastN": _last_n,
}
"""The folds with a columnar form of their own."""

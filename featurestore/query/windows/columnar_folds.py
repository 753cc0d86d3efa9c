"""Each fold over ranges of rows: the columnar form of the table of folds, a function a row.

What a fold means stands in `featurestore.semantics.folds`. Some folds are finished from totals, which tiles of other rows can
be part of; those that pick rows ask for the ends of ranges; a fold that is named in neither table is computed from that
meaning itself, by merging states along a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.query.windows.filtered_rows import Bits, FoldInput, Ints, newest, oldest, take
from featurestore.query.windows.partial_sums import PartialSums, codes_of
from featurestore.query.windows.ranges import Range
from featurestore.semantics.folds import Algebra
from featurestore.semantics.folds.columnar import decimal_sums, moments, round_sums, whole_sums, with_specials
from featurestore.semantics.folds.moments import Moments
from featurestore.semantics.folds.picked import LastRows, Rows
from featurestore.semantics.status import Status
from featurestore.semantics.view import ResolvedFeature, algebra_of
from featurestore.types import FeatureType

__all__ = ["FoldColumn", "finish", "fold"]


class FoldColumn(NamedTuple):
    """A feature's values for n requests, the requests where the result's type cannot hold the value, and of a fold that
    picks rows the places of these, int64[n, rows], -1 where there are fewer."""

    values: pa.Array
    overflow: Bits | None = None
    picked: Ints | None = None


def finish(feature: ResolvedFeature, column: FoldInput, totals: PartialSums) -> FoldColumn:
    """The feature for each request, from totals of its column; of one of the folds that `totals.NEEDS` names."""
    return FINISHED[feature.fold.kind](feature, column, totals)


def fold(feature: ResolvedFeature, column: FoldInput, ranges: Sequence[Range]) -> FoldColumn:
    """The feature for each request, of any other fold; `ranges` are parts of the column's strands."""
    form = PICKED.get(feature.fold.kind)
    return form(feature, column, ranges) if form is not None else _merged(feature, column, ranges)


def _count(_: ResolvedFeature, __: FoldInput, totals: PartialSums) -> FoldColumn:
    return FoldColumn(pa.array(totals.values))


def _sum(feature: ResolvedFeature, column: FoldInput, totals: PartialSums) -> FoldColumn:
    sums, of = totals.sums, feature.type
    assert sums is not None
    empty = totals.values == 0
    if column.of.is_float:
        return FoldColumn(_floats(round_sums(sums.base, sums.digits, of), totals, empty, of))
    if of.kind == "Decimal":
        values, overflow = decimal_sums(sums.digits, of, scale=column.of.scale)
        return FoldColumn(pc.if_else(pa.array(empty), pa.scalar(None, of.arrow), values), overflow & ~empty)
    whole, overflow = whole_sums(sums.digits, 32 if of.kind == "Int32" else 64)
    overflow &= ~empty
    none = empty | overflow
    return FoldColumn(pa.array(np.where(none, 0, whole), mask=none).cast(of.arrow), overflow)


def _mean(feature: ResolvedFeature, column: FoldInput, totals: PartialSums) -> FoldColumn:
    assert totals.sums is not None
    divisor, scale = np.maximum(totals.values, 1), column.of.scale
    rounded = round_sums(totals.sums.base, totals.sums.digits, feature.type, divisor=divisor, scale=scale)
    return FoldColumn(_floats(rounded, totals, totals.values == 0, feature.type))


def _moment(feature: ResolvedFeature, _: FoldInput, totals: PartialSums) -> FoldColumn:
    algebra = algebra_of(feature)
    assert isinstance(algebra, Moments)
    assert totals.sums is not None
    assert totals.squares is not None
    values = moments(algebra, totals.values, totals.sums, totals.squares)
    if totals.special is not None:
        values = np.where(totals.special.any(axis=0), values.dtype.type(np.nan), values)
    return FoldColumn(pa.array(values, feature.type.arrow, mask=totals.values <= algebra.ddof))


def _floats(rounded: npt.NDArray[Any], totals: PartialSums, empty: Bits, of: FeatureType) -> pa.Array:
    values = rounded if totals.special is None else with_specials(rounded, *totals.special)
    return pa.array(values, of.arrow, mask=empty)


def _min(_: ResolvedFeature, column: FoldInput, totals: PartialSums) -> FoldColumn:
    assert totals.least is not None
    return FoldColumn(codes_of(column).values(totals.least, totals.values == 0))


def _max(_: ResolvedFeature, column: FoldInput, totals: PartialSums) -> FoldColumn:
    assert totals.greatest is not None
    return FoldColumn(codes_of(column).values(~totals.greatest, totals.values == 0))


def _newest(_: ResolvedFeature, column: FoldInput, ranges: Sequence[Range]) -> FoldColumn:
    places = newest(column.strands, ranges, 1)
    return FoldColumn(take(column.values, places[:, 0]), picked=places)


def _oldest(_: ResolvedFeature, column: FoldInput, ranges: Sequence[Range]) -> FoldColumn:
    places = oldest(column.strands, ranges)
    return FoldColumn(take(column.values, places), picked=places[:, np.newaxis])


def _last_n(feature: ResolvedFeature, column: FoldInput, ranges: Sequence[Range]) -> FoldColumn:
    places = newest(column.strands, ranges, feature.fold.parameters["n"])
    there = places >= 0
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    values = column.values.take(pa.array(places[there]))
    return FoldColumn(pa.ListArray.from_arrays(pa.array(offsets), values, type=feature.type.arrow), picked=places)


def _merged(feature: ResolvedFeature, column: FoldInput, ranges: Sequence[Range]) -> FoldColumn:
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
    return FoldColumn(values.take(pa.array(inverse)), overflow[inverse], picked)


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


FINISHED: dict[str, Callable[[ResolvedFeature, FoldInput, PartialSums], FoldColumn]] = {
    "Count": _count,
    "Sum": _sum,
    "Mean": _mean,
    "Var": _moment,
    "StdDev": _moment,
    "Min": _min,
    "Max": _max,
}
"""The folds that are finished from totals."""

PICKED: dict[str, Callable[[ResolvedFeature, FoldInput, Sequence[Range]], FoldColumn]] = {
    "First": _oldest,
    "Latest": _newest,
    "LastN": _last_n,
}
"""The folds that pick rows, with a columnar form of their own."""

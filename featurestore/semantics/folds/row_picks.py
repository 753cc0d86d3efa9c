"""Latest, First, LastN and LastDistinctN: what the rows at one end of rule 2's order hold.

A row is its place and its value, the value as `order_bytes` gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from featurestore.lazy import pa, pc
from featurestore.semantics.columns import widens
from featurestore.semantics.folds.algebra import Algebra, CertainAlgebra, Place
from featurestore.semantics.folds.limbs import Ints
from featurestore.semantics.folds.packing import LONG_RUN_BYTES, pack_runs, unpack_runs
from featurestore.semantics.folds.table import FoldKind, add_fold
from featurestore.semantics.order import order_bytes, read_all, widening_reader
from featurestore.semantics.status import Status
from featurestore.types import Array, FeatureType, Scalar

Picked = tuple[Place, bytes]
PickedRows = tuple[Picked, ...]


@dataclass(frozen=True, slots=True)
class OneRow(CertainAlgebra):
    """Of the greatest or the least row. The state: that row, or () for none."""

    column: FeatureType
    result: FeatureType
    decisive: Literal["newest", "oldest"]
    takes_null: bool = True
    zero: tuple[()] = ()
    read: Callable[[bytes], Scalar] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "read", widening_reader(self.column, self.result))

    def lift(self, value: Scalar, place: Place) -> Picked | tuple[()]:
        """One row, whose value may be null."""
        return place, order_bytes(self.column, value)

    def merge(self, a: Picked | tuple[()], b: Picked | tuple[()]) -> Picked | tuple[()]:
        """The greater, or the lesser, of two rows."""
        if not a or not b:
            return a or b
        return max(a, b) if self.decisive == "newest" else min(a, b)

    def merge_packed(self, states: Sequence[bytes]) -> Picked | tuple[()]:
        """The row of the newest state that has one, or of the oldest. 12 × as fast as merging (`benchmarks fast-paths`)."""
        ordered = reversed(states) if self.decisive == "newest" else states
        return self.unpack(next(filter(None, ordered), b""))

    def value(self, state: Picked | tuple[()]) -> Scalar:
        """What the row holds, null included; null of no rows."""
        return self.read(state[1]) if state else None

    def finish_many(self, states: Sequence[Picked | tuple[()]]) -> tuple[list[Scalar], list[Status]]:
        """The values, read together: 4 × as fast as one by one (`benchmarks fast-paths`)."""
        values = read_all(self.read, [state[1] if state else b"" for state in states])
        return values, [Status.PRESENT] * len(states)

    @property
    def picks(self) -> tuple[Literal["newest", "oldest"], int]:
        """One."""
        return self.decisive, 1

    def finish_rows(self, values: pa.Array, places: Ints) -> pa.Array:
        """The values, null where there is no row."""
        return pc.take(values, pa.array(places[:, 0], mask=places[:, 0] < 0))

    def picked(self, state: Picked | tuple[()]) -> Sequence[Place]:
        """The row, if any."""
        return state[:1]

    def pack(self, state: Picked | tuple[()]) -> bytes:
        """Nothing, or the place and the value."""
        return _pack_rows((state,) if state else ())

    def unpack(self, data: bytes) -> Picked | tuple[()]:
        """The state that `pack` wrote; 5 × as fast as `unpack_rows` where both lengths are one byte (`benchmarks fast-paths`)."""
        if data and not data[0] and (size := data[1]) < LONG_RUN_BYTES and data[size + 2] < LONG_RUN_BYTES:
            return data[2 : size + 2], data[size + 3 :]
        rows = unpack_rows(data)
        return rows[0] if rows else ()


@dataclass(frozen=True, slots=True)
class LastRows(CertainAlgebra):
    """Of the n greatest rows, or of the greatest row of each of n values. The state: those rows, greatest first."""

    column: FeatureType
    result: FeatureType
    n: int
    distinct: bool
    zero: PickedRows = ()
    read: Callable[[bytes], Scalar] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert self.result.element is not None
        object.__setattr__(self, "read", widening_reader(self.column, self.result.element))

    @property
    def takes_null(self) -> bool:
        """A null is a value of the last rows, and none of the distinct values."""
        return not self.distinct

    def lift(self, value: Scalar, place: Place) -> PickedRows:
        """One row."""
        return ((place, order_bytes(self.column, value)),)

    def merge(self, a: PickedRows, b: PickedRows) -> PickedRows:
        """The greatest of both; equal rows are as many rows as there are."""
        if not a or not b:
            return a or b
        rows = sorted(a + b, reverse=True)
        if self.distinct:
            newest: dict[bytes, Picked] = {}
            for row in rows:
                newest.setdefault(row[1], row)
            rows = list(newest.values())
        return tuple(rows[: self.n])

    def merge_packed(self, states: Sequence[bytes]) -> PickedRows:
        """The newest states' rows, until there are n: 30 × as fast as merging all of 31 (`benchmarks fast-paths`)."""
        found: PickedRows = ()
        for data in filter(None, reversed(states)):
            found = self.merge(found, self.unpack(data))
            if len(found) == self.n:
                break
        return found

    def value(self, state: PickedRows) -> list[Scalar]:
        """The values, newest first; [] of no rows."""
        return [self.read(value) for _, value in state]

    @property
    def picks(self) -> tuple[Literal["newest", "oldest"], int] | None:
        """The newest rows, where each counts."""
        return None if self.distinct else ("newest", self.n)

    def finish_rows(self, values: pa.Array, places: Ints) -> pa.Array:
        """The values as lists."""
        there = places >= 0
        offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values.take(pa.array(places[there])), type=self.result.arrow)

    def picked(self, state: PickedRows) -> Sequence[Place]:
        """The rows."""
        return [place for place, _ in state]

    def pack(self, state: PickedRows) -> bytes:
        """The rows, greatest first."""
        return _pack_rows(state)

    def unpack(self, data: bytes) -> PickedRows:
        """The state that `pack` wrote."""
        return unpack_rows(data)


def _pack_rows(rows: PickedRows) -> bytes:
    """A byte says whether places are ints (1) or bytes (0); nothing at all where there are no rows."""
    if not rows:
        return b""
    if isinstance(rows[0][0], bytes):
        return b"\x00" + pack_runs([part for row in rows for part in row])
    whole = [(at.to_bytes((at.bit_length() + 8) // 8, "little", signed=True), value) for at, value in rows]
    return b"\x01" + pack_runs([part for row in whole for part in row])


def unpack_rows(data: bytes) -> PickedRows:
    """The rows of a packed state, greatest first."""
    runs = unpack_runs(data[1:])
    places: list[Place] = runs[::2]
    if data[:1] == b"\x01":
        places = [int.from_bytes(at, "little", signed=True) for at in runs[::2]]
    return tuple(zip(places, runs[1::2], strict=True))


def one_result(column: FeatureType | None) -> FeatureType:
    """The column's own type."""
    if column is None:
        raise ValueError("it needs a column")
    return column


def rows_result(column: FeatureType | None, n: int) -> FeatureType:
    """An array of the column's type; ValueError for columns of arrays, and for n < 1."""
    if column is None:
        raise ValueError("it needs a column")
    if n < 1:
        raise ValueError(f"n is at least 1, not {n}")
    if column.element is not None:
        raise ValueError(f"it takes every type but arrays, and the column is {column}")
    return Array(column)


def latest(column: FeatureType | None, result: FeatureType) -> Algebra:
    """The value of the greatest row."""
    return _one(column, result, "newest")


def first(column: FeatureType | None, result: FeatureType) -> Algebra:
    """The value of the least row."""
    return _one(column, result, "oldest")


def last_n(column: FeatureType | None, result: FeatureType, n: int) -> Algebra:
    """The values of the n greatest rows."""
    return _rows(column, result, n, distinct=False)


def last_distinct_n(column: FeatureType | None, result: FeatureType, n: int) -> Algebra:
    """The n values whose greatest rows are greatest; -0.0 and 0.0 are two values, NaN is one."""
    return _rows(column, result, n, distinct=True)


def _one(column: FeatureType | None, result: FeatureType, end: Literal["newest", "oldest"]) -> OneRow:
    own = one_result(column)
    if not widens(own, result):
        raise ValueError(f"the column is {own}, which does not fit {result} without loss")
    return OneRow(own, result, end)


def _rows(column: FeatureType | None, result: FeatureType, n: int, *, distinct: bool) -> LastRows:
    own = rows_result(column, n)
    assert column is not None
    if result.length is not None or not widens(own, result):
        raise ValueError(f"its values are {own}, which does not fit {result} without loss")
    return LastRows(column, result, n, distinct)


ONE_DOCS = (
    "| `Latest(c)`, `First(c)` | any column | the column's value in the newest or oldest row, null included | null | |",
)
LAST_DOCS = (
    "| `LastN(c, n)` | a column that is no array | Array: the values of the n newest rows, newest first, nulls included | `[]` | |",
)
DISTINCT_DOCS = (
    "| `LastDistinctN(c, n)` | a column that is no array | Array: the n most recent distinct values, newest first | `[]` | |",
)

add_fold(FoldKind("Latest", one_result, latest, ONE_DOCS, ordered=True))
add_fold(FoldKind("First", one_result, first, ONE_DOCS, ordered=True))
add_fold(FoldKind("LastN", rows_result, last_n, LAST_DOCS, ordered=True))
add_fold(FoldKind("LastDistinctN", rows_result, last_distinct_n, DISTINCT_DOCS, ordered=True))

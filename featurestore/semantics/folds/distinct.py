"""CountDistinct: an exact set of values up to a declared bound."""

from __future__ import annotations

from dataclasses import dataclass

from featurestore.semantics.folds.algebra import Algebra, Place
from featurestore.semantics.folds.packing import pack_runs, unpack_runs
from featurestore.semantics.folds.table import FoldKind, add_fold
from featurestore.semantics.order import order_bytes
from featurestore.semantics.status import Status
from featurestore.types import FeatureType, Int64, Scalar

Values = frozenset[bytes] | None
SATURATED = b"\x01"


@dataclass(frozen=True, slots=True)
class Distinct(Algebra):
    """The state: the set of values by their canonical bytes, or None once there are more than the bound."""

    column: FeatureType
    bound: int
    takes_null: bool = False
    zero: Values = frozenset()

    def lift(self, value: Scalar, place: Place) -> Values:  # noqa: ARG002 - one form for every fold
        """One value; -0.0 and 0.0 are two, NaN is one."""
        return frozenset((order_bytes(self.column, value)[1:],))

    def merge(self, a: Values, b: Values) -> Values:
        """The union, or None where either or both are more than the bound."""
        if a is None or b is None:
            return None
        both = a | b
        return both if len(both) <= self.bound else None

    def finish(self, state: Values) -> tuple[int | None, Status]:
        """How many values; null, OVERFLOW for more than the bound."""
        return (None, Status.OVERFLOW) if state is None else (len(state), Status.PRESENT)

    def pack(self, state: Values) -> bytes:
        """One byte once saturated; else nothing for none, or a zero byte and the values in their order."""
        if state is None:
            return SATURATED
        return b"\x00" + pack_runs(sorted(state)) if state else b""

    def unpack(self, data: bytes) -> Values:
        """The state that `pack` wrote."""
        return None if data == SATURATED else frozenset(unpack_runs(data[1:]))


def distinct_result(column: FeatureType | None, bound: int) -> FeatureType:
    """Int64; ValueError for a bound below 1."""
    if column is None:
        raise ValueError("it needs a column")
    if bound < 1:
        raise ValueError(f"bound is at least 1, not {bound}")
    return Int64


def count_distinct(column: FeatureType | None, result: FeatureType, bound: int) -> Algebra:
    """How many different values a column has, up to `bound` of them."""
    distinct_result(column, bound)
    assert column is not None
    if result != Int64:
        raise ValueError(f"a count is Int64, not {result}")
    return Distinct(column, bound)


DOCS = (
    "| `CountDistinct(c, bound=1000)` | any column | Int64, exact up to `bound` | 0 | more than `bound`: `OVERFLOW` |",
)

add_fold(FoldKind("CountDistinct", distinct_result, count_distinct, DOCS, large=True))

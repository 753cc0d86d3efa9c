"""Count: how many rows, or how many values that are not null."""

from __future__ import annotations

from dataclasses import dataclass

from featurestore.lazy import pa
from featurestore.semantics.folds.algebra import CertainAlgebra, FoldColumn, PartialSums, Place, SumField
from featurestore.semantics.folds.packing import pack_ints, unpack_ints
from featurestore.semantics.folds.table import FoldKind, add_fold
from featurestore.types import FeatureType, Int64, Scalar


@dataclass(frozen=True, slots=True)
class Counting(CertainAlgebra):
    """The state is the count."""

    takes_null: bool
    zero: int = 0
    numbers: tuple[str, ...] = ("values",)
    sum_fields: tuple[SumField, ...] = ()

    def lift(self, value: Scalar, place: Place) -> int:  # noqa: ARG002 - one form for every fold
        """One row counts once."""
        return 1

    def merge(self, a: int, b: int) -> int:
        """The sum of both."""
        return a + b

    def value(self, state: int) -> int:
        """The count, 0 for no rows."""
        return state

    def finish_sums(self, sums: PartialSums) -> FoldColumn:
        """The counts."""
        return FoldColumn(pa.array(sums.values))

    def pack(self, state: int) -> bytes:
        """As one integer."""
        return pack_ints((state,))

    def unpack(self, data: bytes) -> int:
        """The count that `pack` wrote."""
        return unpack_ints(data)[0]


def count_result(column: FeatureType | None) -> FeatureType:  # noqa: ARG001 - any column, or none
    """Int64, whatever is counted."""
    return Int64


def count(column: FeatureType | None, result: FeatureType) -> Counting:
    """Count of the values of a column, or of rows where none is named; ValueError for a result that is not Int64."""
    if result != Int64:
        raise ValueError(f"a count is Int64, not {result}")
    return Counting(takes_null=column is None)


DOCS = (
    "| `Count()`, `Count(c)` | nothing, or any column | Int64: rows, or rows in which the column is not null | 0 | |",
)

add_fold(FoldKind("Count", count_result, count, DOCS))

"""A fold that the package does not have, as its one file would be: `Range`, the greatest value less the least.

See "Adding a fold" in CONTRIBUTING.md. What is declared here too, the class that users write, would lie in declare/folds.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Unpack

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.declare.declaration import declares
from featurestore.declare.folds import Fold, FoldOptions
from featurestore.semantics.folds import Algebra, FoldColumn, FoldKind, PartialSums, Place, SumField
from featurestore.semantics.folds.packing import pack_ints, unpack_ints
from featurestore.semantics.status import Status
from featurestore.types import FeatureType, Int64, Scalar

LARGEST = (1 << 63) - 1


class Range(Fold):
    """The greatest value less the least. Null when there is no value; OVERFLOW beyond Int64."""

    kind: Literal["Range"] = "Range"
    column: str

    @declares
    def __init__(self, column: str, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, **options)


@dataclass(frozen=True, slots=True)
class Ends(Algebra):
    """The state: the least value and the greatest; () of none."""

    takes_null: bool = False
    zero: tuple[int, ...] = ()
    sum_fields: tuple[SumField, ...] | None = ("least", "greatest")

    def lift(self, value: Scalar, place: Place) -> tuple[int, ...]:
        """One value."""
        return value, value

    def merge(self, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        """The ends of both."""
        return (min(a[0], b[0]), max(a[1], b[1])) if a and b else a or b

    def finish(self, state: tuple[int, ...]) -> tuple[int | None, Status]:
        """How far the ends lie apart."""
        if not state:
            return None, Status.PRESENT
        length = state[1] - state[0]
        return (length, Status.PRESENT) if length <= LARGEST else (None, Status.OVERFLOW)

    def finish_sums(self, sums: PartialSums) -> FoldColumn:
        """The same of many requests: a difference beyond Int64 wraps around to a negative one."""
        least, greatest = (pc.fill_null(end, 0).to_numpy() for end in (sums.minimum, sums.maximum))
        length = greatest - least
        return FoldColumn(pa.array(length, mask=(length < 0) | (sums.values == 0)), length < 0)

    def pack(self, state: tuple[int, ...]) -> bytes:
        """Both ends."""
        return pack_ints(state)

    def unpack(self, data: bytes) -> tuple[int, ...]:
        """The state that `pack` wrote."""
        return tuple(unpack_ints(data))


def range_result(column: FeatureType | None) -> FeatureType:
    """Int64; ValueError where the column holds no integers."""
    if column not in {Int64}:
        raise ValueError(f"it takes Int64, and the column is {column}")
    return Int64


def range_of(column: FeatureType | None, result: FeatureType) -> Algebra:
    """The range of a column; ValueError for another `result`."""
    if result != range_result(column):
        raise ValueError(f"a range is Int64, not {result}")
    return Ends()


ROW = FoldKind(
    "Range",
    range_result,
    range_of,
    docs=("| `Range(c)` | Int64 | Int64: the greatest value less the least | null | `OVERFLOW` |",),
)

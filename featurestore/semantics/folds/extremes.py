"""Min and Max: NaN is greater than every number, and -0.0 is less than 0.0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from featurestore.semantics.columns import widens
from featurestore.semantics.folds.algebra import Algebra, Place
from featurestore.semantics.order import order_bytes, read_all, widening_reader
from featurestore.semantics.status import Status
from featurestore.types import FeatureType, Scalar

__all__ = ["Extreme", "extreme_result", "maximum", "minimum"]


@dataclass(frozen=True, slots=True)
class Extreme:
    """The state: the greatest or least value as `order_bytes` gives it, which compares as it does; b"" for none."""

    column: FeatureType
    result: FeatureType
    greatest: bool
    takes_null: bool = False
    zero: bytes = b""
    read: Callable[[bytes], Scalar] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "read", widening_reader(self.column, self.result))

    def lift(self, value: Scalar, place: Place) -> bytes:  # noqa: ARG002 - one form for every fold
        """One value."""
        return order_bytes(self.column, value)

    def merge(self, a: bytes, b: bytes) -> bytes:
        """The greater, or the lesser, of both."""
        if self.greatest:
            return max(a, b)
        return min(a, b) if a and b else a or b

    def merge_packed(self, states: Sequence[bytes]) -> bytes:
        """The greatest, or the least, of all."""
        if self.greatest:
            return max(states, default=b"")
        return min(states, default=b"") or min(filter(None, states), default=b"")

    def finish(self, state: bytes) -> tuple[Scalar, Status]:
        """The value; null of no values."""
        return (self.read(state) if state else None), Status.PRESENT

    def values(self, states: Sequence[bytes]) -> list[Scalar]:
        """See Certain."""
        return read_all(self.read, states)

    def pack(self, state: bytes) -> bytes:
        """The state is bytes already."""
        return state

    def unpack(self, data: bytes) -> bytes:
        """The state that `pack` wrote."""
        return data


def extreme_result(column: FeatureType | None) -> FeatureType:
    """The column's own type; ValueError for columns of arrays."""
    if column is None:
        raise ValueError("it needs a column")
    if column.element is not None:
        raise ValueError(f"it takes every type but arrays, and the column is {column}")
    return column


def minimum(column: FeatureType | None, result: FeatureType) -> Algebra:
    """The least value."""
    return _extreme(column, result, greatest=False)


def maximum(column: FeatureType | None, result: FeatureType) -> Algebra:
    """The greatest value."""
    return _extreme(column, result, greatest=True)


def _extreme(column: FeatureType | None, result: FeatureType, *, greatest: bool) -> Extreme:
    own = extreme_result(column)
    if not widens(own, result):
        raise ValueError(f"the column is {own}, which does not fit {result} without loss")
    return Extreme(own, result, greatest)

"""What every fold is: an exact commutative monoid over the visible rows, and how its states become bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from featurestore.semantics.status import Status
from featurestore.types import Scalar

__all__ = ["Additive", "Algebra", "Certain", "Consecutive", "Group", "Place", "State"]

State = Any
"""A plain immutable Python value; each algebra has its own. Equal states pack to equal bytes, and only they."""

Place = Any
"""Where rule 2 puts a row: bytes or an int, of one kind within a fold."""


class Algebra(Protocol):
    """`merge` is associative and commutative to the bit, and `zero` changes nothing."""

    @property
    def zero(self) -> State:
        """The state of no rows."""

    @property
    def takes_null(self) -> bool:
        """Whether null is lifted too; rows whose value is null are skipped otherwise."""

    def lift(self, value: Scalar, place: Place) -> State:
        """The state of one row. `value` is a canonical scalar, or None where the fold counts rows."""

    def merge(self, a: State, b: State) -> State:
        """The state of the rows of both."""

    def finish(self, state: State) -> tuple[Scalar, Status]:
        """The canonical scalar of the result's type, PRESENT; or None, OVERFLOW where the result cannot hold it."""

    def pack(self, state: State) -> bytes:
        """The one form of a state as bytes."""

    def unpack(self, data: bytes) -> State:
        """The state that `pack` wrote."""


@runtime_checkable
class Group(Algebra, Protocol):
    """A fold that can take rows out again, so that a replaced row need not be searched for in others."""

    def subtract(self, a: State, b: State) -> State:
        """The state of the rows of `a` without those of `b`, all of which `a` holds."""


@runtime_checkable
class Additive(Group, Protocol):
    """A group whose states are so many integers, and merging adds them one by one: states of many tiles are sums of columns."""

    @property
    def names(self) -> tuple[str, ...]:
        """What each integer of a state is, which is a tuple of them, or itself the only one. Folds of one column under one
        condition have the same number of one name."""


@runtime_checkable
class Certain(Algebra, Protocol):
    """A fold whose result holds every state: it is never OVERFLOW."""

    def values(self, states: Sequence[State]) -> list[Scalar]:
        """The values that `finish` gives of each state."""


@runtime_checkable
class Consecutive(Algebra, Protocol):
    """A fold that need not take apart the state of every tile."""

    def merge_packed(self, states: Sequence[bytes]) -> State:
        """The merge of packed states that follow each other in time: places in a later one are greater than in those before."""

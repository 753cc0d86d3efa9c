"""The folds: each stored feature is a fold of the visible rows, and each fold is one row of this table.

A fold that *picks* returns what one row holds: the greatest by rule 2 for `Latest`. The as-of query then carries only
a pointer to the row, and the row's columns are gathered once for all features of the view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from featurestore.types import FeatureType

__all__ = ["FOLDS", "Meaning"]


class Meaning(NamedTuple):
    """What one fold is."""

    picks: bool
    """Whether the value is a column of the one row that rule 2 puts last."""

    result: Callable[[FeatureType], FeatureType]
    """The value's type, from the column's (a stated type may widen it)."""


def _the_columns_own(column: FeatureType) -> FeatureType:
    return column


FOLDS: dict[str, Meaning] = {
    "Latest": Meaning(picks=True, result=_the_columns_own),
}

"""The table of folds: a row says what one is, and lies in the fold's own file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from featurestore.semantics.folds.algebra import Algebra
from featurestore.types import FeatureType


class FoldKind(NamedTuple):
    """A row of the table of folds."""

    kind: str
    """The `kind` of the fold's declaration, a class in `featurestore.declare.folds`."""

    result: Callable[..., FeatureType]
    """`result(column, **parameters)`: the value's type, from the column's (None where it reads none) and the parameters that
    the declaration takes. ValueError says which types the fold takes."""

    algebra: Callable[..., Algebra]
    """`algebra(column, result, **parameters)`; a stated result may widen. ValueError where it cannot be the result's."""

    docs: tuple[str, ...]
    """Its rows of the table in docs/folds.md, of which several folds may share one."""

    ordered: bool = False
    """Whether it asks which of two rows rule 2 puts first."""

    large: bool = False
    """Whether its states are sets or sketches, of which a continuous view keeps few in one window."""


_FOLDS: dict[str, FoldKind] = {}

FOLDS: Mapping[str, FoldKind] = MappingProxyType(_FOLDS)
"""Every fold by its kind."""


def add_fold(row: FoldKind) -> None:
    """Add a row to the table; ValueError where there is one of its kind."""
    if row.kind in _FOLDS:
        raise ValueError(f"there is a fold of kind '{row.kind}' already")
    _FOLDS[row.kind] = row

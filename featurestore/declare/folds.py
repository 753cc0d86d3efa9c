"""Folds, as users write them: how a feature's value is made of the visible rows.

What each one means stands in `featurestore.semantics.folds`, a row a fold.
"""

from __future__ import annotations

from typing import Any, Literal

from featurestore.declare.declaration import Declaration, TypeField, declares

__all__ = ["Fold", "Latest"]


class Fold(Declaration):
    """How one feature is made of a view's visible rows; `kind` names the row of the table of folds."""

    kind: str
    column: str
    default: Any = None
    type: TypeField | None = None

    @property
    def title(self) -> str:
        """Its kind and column, for messages."""
        return f"{type(self).__name__}('{self.column}')"


class Latest(Fold):
    """The column's value in the newest visible row, null included.

    `default` replaces the null of a key that is MISSING or EXPIRED (never a null that the row holds); `type` states
    the feature's type, which otherwise is the column's own.
    """

    kind: Literal["Latest"] = "Latest"

    @declares
    def __init__(self, column: str, *, default: Any = None, type: TypeField | None = None) -> None:  # noqa: A002 - the field's word
        self.fill(column=column, default=default, type=type)

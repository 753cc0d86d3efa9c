"""Columns whose type is another than when a view was applied, while its definition is as it was."""

from __future__ import annotations

from collections.abc import Iterator

from featurestore.errors import SourceError
from featurestore.semantics.view import ResolvedView

REMEDY = (
    "Restore the type in the data, or take it as a change of the view: featurestore plan --accept-types, then featurestore "
    "apply --accept-types (store.apply(accept_types=True))"
)


def type_change(applied: ResolvedView, found: ResolvedView, *, read_from: str = "") -> SourceError:
    """The error about a view whose columns have other types than when it was applied. read_from: which files were read."""
    was, now = applied.identity_columns, found.identity_columns
    shown = "; ".join(
        f"column '{name}'{_readers(found, name)} was {was[name]} ({applied.named_raw[name]}) when it was applied and is "
        f"{now[name]} ({found.named_raw[name]}) now"
        for name in was
        if was[name] != now.get(name)
    )
    return SourceError(
        f"{found.declared.title}: in source '{found.source.name}' {shown}, and the definition did not change. {REMEDY} "
        f"({found.declared.origin}){read_from}"
    )


def _readers(view: ResolvedView, column: str) -> str:
    """What reads a column, in parentheses; nothing where only a condition does."""
    found = ", ".join(_each(view, column))
    return f" ({found})" if found else ""


def _each(view: ResolvedView, column: str) -> Iterator[str]:
    yield from (f"key '{key.name}'" for key in view.keys if key.column == column)
    yield from (f"feature '{feature.name}'" for feature in view.features if feature.fold.column == column)
    if column in view.source.option_columns:
        yield "an option of the source"

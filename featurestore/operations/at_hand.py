"""What was applied, over the sources as they are now."""

from __future__ import annotations

from collections.abc import Sequence

from featurestore.catalog import Catalog
from featurestore.errors import NotFoundError, SourceError, did_you_mean
from featurestore.registry.documents import Document, resolved_view
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.stores.offline import Offline

__all__ = ["applied_views", "view_at_hand"]


def applied_views(
    document: Document, catalog: Catalog, offline: Offline, *, names: Sequence[str] | None = None
) -> list[ResolvedView]:
    """The applied views (only those named) over their sources as they are now; NotFoundError, SourceError."""
    for name in names or ():
        if name not in document["views"]:
            raise NotFoundError(f"No feature view '{name}' was applied.{did_you_mean(name, document['views'])}")
    wanted = [name for name in document["views"] if not names or name in names]
    return [view_at_hand(resolved_view(document, name), catalog, offline) for name in wanted]


def view_at_hand(applied: ResolvedView, catalog: Catalog, offline: Offline) -> ResolvedView:
    """The applied view over its source as it is now: the definition at hand where it is the one applied."""
    own = catalog.views.get(applied.name)
    for declared in [applied.declared] if own is None else [own, applied.declared]:
        view = resolve(declared, offline.raw_types(declared.source))
        if view.fingerprint == applied.fingerprint:
            return view
    was = {column: of for column, of in applied.raw.items() if view.raw.get(column) != of}
    changed = ", ".join(f"'{column}' was {of} and is {view.raw.get(column)}" for column, of in was.items())
    raise SourceError(
        f"{applied.source.title} is not what it was when view '{applied.name}' was applied: {changed}; run featurestore "
        f"plan ({applied.source.origin})"
    )

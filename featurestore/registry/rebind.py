"""Applied views over their sources' present files and columns."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from featurestore.catalog import Catalog
from featurestore.declare.views import FeatureView
from featurestore.errors import DeclarationError, NotFoundError, RequestError, SourceError, apply_first, did_you_mean
from featurestore.registry.records import Version
from featurestore.registry.type_changes import type_change
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.sources.offline import Offline


def applied_views(
    version: Version, catalog: Catalog, offline: Offline, *, names: Sequence[str] | None = None,
    kept: Sequence[ResolvedView] = (),
) -> list[ResolvedView]:  # fmt: skip
    """The applied views (only those named), then those `kept` beside them, over their sources as they are now.

    Raises NotFoundError, SourceError.
    """
    check_applied(version, catalog, names=names, kept=kept)
    current = [version.view(name) for name in version.document["views"] if not names or name in names]
    wanted = [*current, *(view for view in kept if not names or view.name in names)]
    return [rebind(view, catalog, offline) for view in wanted]


def check_applied(
    version: Version, catalog: Catalog, *, names: Sequence[str] | None, kept: Sequence[ResolvedView]
) -> None:
    """NotFoundError where one of the names is that of no view that is applied or kept, RequestError where they are one text."""
    if isinstance(names, str):
        raise RequestError(f"views is a list of names, and not {names!r}; [{names!r}] is one of one view")
    known = {*version.document["views"], *(view.name for view in kept)}
    for name in names or ():
        if name not in known:
            hint = apply_first(name, catalog.views) + did_you_mean(name, known)
            raise NotFoundError(f"No feature view '{name}' was applied{version.catalog.kind_of(name)}.{hint}")


def rebind(applied: ResolvedView, catalog: Catalog, offline: Offline) -> ResolvedView:
    """The applied view over its source as it is now: the definition at hand where it is the one applied.

    Of a version that another took the place of, the source at hand is read where it says the same: it knows where the
    rows lie now.
    """
    own, source = catalog.views.get(applied.name), catalog.sources.get(applied.source.name)
    moved = None if source is None else applied.declared.model_copy(update={"source": source})
    for declared in (own, moved):
        with contextlib.suppress(DeclarationError, SourceError):  # of another version, or over a source that is
            view = None if declared is None else _settled(declared, applied, offline)
            if view is not None and view.fingerprint == applied.fingerprint:
                return view
    view = _settled(applied.declared, applied, offline)
    if view.fingerprint == applied.fingerprint:
        return view
    raise type_change(applied, view)


def _settled(declared: FeatureView, applied: ResolvedView, offline: Offline) -> ResolvedView:
    return resolve(declared, RawColumns.named_as(offline.raw_types(declared.source), applied.raw))

"""Which pages there are, in the order of the navigation."""

from __future__ import annotations

from featurestore.console.page import PageKind
from featurestore.console.pages import (
    activity,
    audit,
    availability,
    catalog,
    drift,
    entity,
    explain,
    feature,
    function,
    keys,
    lineage,
    lookup,
    overview,
    pushes,
    quarantine,
    request,
    runs,
    service,
    source,
    statistics,
    training,
    view,
)

PAGES: tuple[PageKind, ...] = (
    overview.PAGE,
    runs.PAGE,
    audit.PAGE,
    drift.PAGE,
    statistics.PAGE,
    availability.PAGE,
    explain.PAGE,
    request.PAGE,
    catalog.PAGE,
    entity.PAGE,
    source.PAGE,
    view.PAGE,
    feature.PAGE,
    function.PAGE,
    service.PAGE,
    lineage.PAGE,
    training.PAGE,
    lookup.PAGE,
    pushes.PAGE,
    quarantine.PAGE,
    keys.PAGE,
    activity.PAGE,
)
"""Each kind of page once; a page is added here, and has a module in `pages` and a template of its own."""

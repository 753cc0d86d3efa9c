"""A feature of a view: its fold, its type, its window, and the services that have it."""

from __future__ import annotations

from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest
from featurestore.console.pages.described import described, facts, labels, tables
from featurestore.console.readable_store import ReadableStore


def feature(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore show VIEW:FEATURE` tells of it."""
    found = described(store, "feature", asked.name)
    values = {
        "what": "Feature",
        "facts": facts(found),
        **labels(found),
        "code": None,
        "lineage": asked.name,
        "more": []
        if asked.is_static
        else [
            PageLink("Explain a value", "explain", "", {"view": asked.name}),
            PageLink("Statistics", "statistics", "", {"feature": asked.name}),
        ],
    }
    return PageModel("definition.html", asked.name, values, tables(found))


PAGE = PageKind("feature", "Feature", feature, is_named=True, is_listed=False, is_static=True)

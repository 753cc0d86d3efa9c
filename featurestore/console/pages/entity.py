"""An entity: its key, and the views of it."""

from __future__ import annotations

from featurestore.console.page import PageKind, PageModel, PageRequest
from featurestore.console.pages.described import described, facts, labels, tables
from featurestore.console.readable_store import ReadableStore


def entity(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore show NAME` tells of it."""
    found = described(store, "entity", asked.name)
    values = {"what": "Entity", "facts": facts(found), **labels(found), "code": None, "lineage": None, "more": []}
    return PageModel("definition.html", asked.name, values, tables(found))


PAGE = PageKind("entity", "Entity", entity, is_named=True, is_listed=False, is_static=True)

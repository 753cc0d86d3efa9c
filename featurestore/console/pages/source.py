"""A source: where its rows lie, when each counts, its columns, and what reads it."""

from __future__ import annotations

from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest
from featurestore.console.pages.described import described, facts, labels, tables
from featurestore.console.readable_store import ReadableStore


def source(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore show NAME` tells of it."""
    found = described(store, "source", asked.name)
    is_pushed = found.fields.get("type") == "PushSource"
    ways = (
        PageLink("Its push log", "pushes", "", {"source": asked.name}),
        PageLink("Rows in quarantine", "quarantine", "", {"of": asked.name}),
    )
    more = list(ways) if is_pushed and not asked.is_static else []
    values = {
        "what": "Source",
        "facts": facts(found),
        **labels(found),
        "code": None,
        "lineage": asked.name,
        "more": more,
    }
    return PageModel("definition.html", asked.name, values, tables(found))


PAGE = PageKind("source", "Source", source, is_named=True, is_listed=False, is_static=True)

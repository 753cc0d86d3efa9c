"""An on-demand feature: its code, its inputs, and who uses it."""

from __future__ import annotations

from featurestore.console.page import PageKind, PageModel, PageRequest
from featurestore.console.pages.described import described, facts, labels, tables
from featurestore.console.readable_store import ReadableStore


def function(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore show NAME` tells of it."""
    found = described(store, "on-demand feature", asked.name)
    code = found.fields.get("code")
    values = {
        "what": "On-demand feature",
        "facts": facts(found),
        **labels(found),
        "code": code,
        "lineage": asked.name,
        "more": [],
    }
    return PageModel("definition.html", asked.name, values, tables(found))


PAGE = PageKind("function", "On-demand feature", function, is_named=True, is_listed=False, is_static=True)

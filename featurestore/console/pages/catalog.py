"""The catalog: every definition and every feature, found by what is in its name, description, owner or tags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageTable
from featurestore.console.readable_store import ReadableStore
from featurestore.registry.documents import KINDS

PAGES_OF = {"entities": "entity", "sources": "source", "views": "view", "on_demand": "function", "services": "service"}
"""The kind of page of each kind of definition."""

LABELS = ("description", "owner", "tags")
"""Columns that are shown where anything found has one."""


class CatalogEntry(NamedTuple):
    """A definition, or a feature of a view. kind: what it is called; page: the kind of its page."""

    kind: str
    page: str
    name: str
    description: str
    owner: str
    tags: str

    def has(self, words: list[str]) -> bool:
        """Whether each word is somewhere in it, whatever its case."""
        text = "\n".join((self.name, self.name.replace(":", "__"), self.description, self.owner, self.tags)).casefold()
        return all(word in text for word in words)


def entries(store: ReadableStore) -> Iterator[CatalogEntry]:
    """All that is declared or applied: services first, since people ask for them, and each view with its features."""
    catalog = store.catalog
    for part in reversed(KINDS):
        for item in getattr(catalog, part).values():
            labels = item.description, item.owner, _tags(item.tags)
            yield CatalogEntry(KINDS[part], PAGES_OF[part], item.name, *labels)
            if part == "views":
                for feature in item.features:
                    if store.has_feature(item.name, feature):
                        yield CatalogEntry("feature", "feature", f"{item.name}:{feature}", *labels)


def _tags(tags: Any) -> str:
    return ", ".join(f"{name}: {value}" if value else str(name) for name, value in dict(tags).items())


def catalog(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore show` lists, where each word that is asked for is in it."""
    text, kind = asked.word("q"), asked.word("kind")
    words = (text or "").casefold().split()
    every = list(entries(store))
    found = [one for one in every if (kind is None or one.kind == kind) and one.has(words)]
    told = [word for word in LABELS if any(getattr(one, word) for one in found)]
    rows = [(one.kind, PageLink(one.name, one.page, one.name), *(getattr(one, word) for word in told)) for one in found]
    kinds = list(dict.fromkeys(one.kind for one in every))
    table = PageTable(
        "found",
        "Definitions and features that were found",
        ("kind", "name", *told),
        rows,
        "Nothing has all of these words." if every else "Nothing is declared yet: featurestore init",
    )
    values = {"asked": text or "", "chosen": kind or "", "kinds": kinds, "count": len(found), "of": len(every)}
    return PageModel("catalog.html", "Catalog", values, (table,))


PAGE = PageKind("catalog", "Catalog", catalog, is_static=True)

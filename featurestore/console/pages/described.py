"""What the pages of definitions share: the whole meaning of one, as `featurestore show NAME` tells it, with links to what it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from featurestore.console.page import PageLink, PageTable
from featurestore.console.readable_store import ReadableStore
from featurestore.errors import NotFoundError
from featurestore.reports.description import Description

LEADS_TO = {
    "views": "view", "view": "view", "services": "service", "source": "source", "history": "source", "entity": "entity",
}  # fmt: skip
"""The words whose values are names, and the pages of what they name."""

CODE = "code"
PATHS = {"declared", "path"}
"""The words whose values are paths."""

HEADED = {"description", CODE, "owner", "tags"}
"""What a page shows on its own."""


def described(store: ReadableStore, kind: str, name: str) -> Description:
    """What one definition of a kind means. Raises NotFoundError with the nearest name, or with what else bears it."""
    found = store.describe(name)
    for one in found:
        if one.kind == kind and one.name == name:
            return replace(one, fields={word: _path(word, value, store) for word, value in one.fields.items()})
    others = ", ".join(f"a {one.kind}" for one in found)
    raise NotFoundError(f"'{name}' is no {kind}; it is {others}")


def _path(word: str, value: Any, store: ReadableStore) -> Any:
    """A path, or several, as they are seen from the repository; any other value as it is."""
    if word in PATHS and isinstance(value, (list, tuple)):
        return [_path(word, one, store) for one in value]
    return store.within(value) if word in PATHS and isinstance(value, str) else value


def facts(description: Description) -> list[tuple[str, object]]:
    """Its words and their values; those that name something lead there."""
    return [
        (word.replace("_", " "), fact(word, value)) for word, value in description.fields.items() if word not in HEADED
    ]


def fact(word: str, value: Any) -> object:
    """A value of a word, with links where it names something."""
    if word in LEADS_TO and isinstance(value, str):
        return PageLink(value, LEADS_TO[word], value)
    if word in LEADS_TO and isinstance(value, (list, tuple)):
        return [PageLink(str(one), LEADS_TO[word], str(one)) for one in value]
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {said}" for name, said in value.items())
    return value


def labels(description: Description) -> dict[str, object]:
    """Its description, owner and tags, "" where it has none."""
    tags = description.fields.get("tags", {})
    return {
        "about": description.fields.get("description", ""),
        "owner": description.fields.get("owner", ""),
        "tags": [f"{name}: {value}" if value else str(name) for name, value in dict(tags).items()],
    }


def tables(description: Description, view: str | None = None) -> list[PageTable]:
    """Its tables. view: the one whose features they name."""
    found = []
    for title, records in description.tables.items():
        header = list(dict.fromkeys(word for row in records for word in row))
        rows = [[_cell(word, row.get(word), view) for word in header] for row in records]
        found.append(PageTable(title, title.capitalize(), [word.replace("_", " ") for word in header], rows))
    return found


def _cell(word: str, value: Any, view: str | None) -> object:
    if value is None:
        return ""
    if word == "feature" and view is not None:
        return PageLink(str(value), "feature", f"{view}:{value}")
    if word == "from" and ":" in str(value):
        return PageLink(str(value), "feature", str(value))
    return fact(word, value)

"""A live lookup: the features of one row of keys and request values, as a model is served them now."""

from __future__ import annotations

from typing import Any

from featurestore.console.asked import KEY
from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageState, PageTable, instant
from featurestore.console.readable_store import ReadableStore
from featurestore.errors import FeatureStoreError, RequestError
from featurestore.semantics.service import ServiceView
from featurestore.serving.lookup import Lookup
from featurestore.serving.online_result import OnlineResult
from featurestore.typed_texts import json_value

INPUT = "in."
"""What stands before the name of an input in an address, so that none is taken for a word of the page."""


def lookup(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore online SERVICE NAME=VALUE…` answers; as there, it is not logged."""
    name = asked.word("service")
    services = list(store.applied("services"))
    values: dict[str, Any] = {
        "services": services,
        "service": name or "",
        "inputs": [],
        "why": "",
        "given": False,
    }
    tables: list[PageTable] = []
    if name is not None:
        loaded = store.lookup(name)
        said = {word: asked.query.get(INPUT + word) for word in loaded.service.inputs}
        values["inputs"] = [
            {"name": word, "type": str(of), "said": said[word] or "", "is_key": word in loaded.service.key_inputs}
            for word, of in loaded.service.inputs.items()
        ]
        values["given"] = any(text is not None for text in said.values())
        if values["given"]:
            try:
                result = loaded.get([_row(loaded, said)], json=True)
                tables = _tables(loaded, result, said)
            except FeatureStoreError as error:
                values["why"] = store.told(error)
    return PageModel("lookup.html", "Lookup", values, tables)


def _row(loaded: Lookup, said: dict[str, str | None]) -> dict[str, Any]:
    """The values that a form has, in their JSON forms; an empty field is null, and an empty text where that is what is asked for."""
    row: dict[str, Any] = {}
    for name, of in loaded.service.inputs.items():
        text = said[name]
        if text is None or (text == "" and of.kind != "String"):
            row[name] = None
            continue
        try:
            row[name] = json_value(text, of)
        except ValueError as error:
            raise RequestError(f"'{name}' must be {of}: {error}") from None
    return row


def _tables(loaded: Lookup, result: OnlineResult, said: dict[str, str | None]) -> list[PageTable]:
    views = {part.name: part.view.name for part in loaded.service.parts}
    columns, statuses, rows = result.to_dict(), result.statuses, []
    for column in loaded.service.columns:
        status = statuses[column.name][0]
        made: object = "on demand"
        if column.part is not None:
            feature = f"{views[column.part]}:{column.feature}"
            made = PageLink(feature, "feature", feature)
        level = {"PRESENT": "good", "UNAVAILABLE": "bad"}.get(str(status), "warn")
        rows.append((column.name, columns[column.name][0], PageState(str(status), level), made))
    asked = {part.name: _why(part, said) for part in loaded.service.parts}
    stale = result.stale
    ages = [
        (
            PageLink(views.get(name, name), "view", views.get(name, name)),
            _instant(at),
            PageState("stale", "warn") if stale[name] else PageState("in time", "good"),
            PageLink("Explain its values", "explain", "", asked[name]) if name in asked else "",
        )
        for name, at in result.as_of.items()
    ]
    return [
        PageTable("values", "Values that are served now", ("column", "value", "status", "made of"), rows),
        PageTable("as_of", "How old the values are", ("view", "as of", "is", "why"), ages, "No view was asked."),
    ]


def _why(part: ServiceView, said: dict[str, str | None]) -> dict[str, str]:
    """What is asked of the page that tells why a view has these values for this key."""
    keys = {
        KEY + key.name: said[column] or ("" if key.type.kind == "String" else "null")
        for key, column in zip(part.view.keys, part.inputs, strict=True)
    }
    return {"view": part.view.name, **keys}


def _instant(at: Any) -> object:
    return instant(at) if isinstance(at, int) else at


PAGE = PageKind("lookup", "Lookup", lookup, group="Ask")

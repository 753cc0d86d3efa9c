"""A service: its columns and inputs, its versions side by side, how often each was asked for, and how one is retired."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageState, PageTable
from featurestore.console.pages.described import described, facts, labels, tables
from featurestore.console.pages.history import SHOWN, history_of
from featurestore.console.readable_store import ReadableStore
from featurestore.registry.diff import changes


def service(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore show NAME`, `lineage` and `history` tell of it."""
    name = asked.name
    found = described(store, "feature service", name)
    history, applied = history_of(store, "services", name)
    kept = [one.fingerprint for one in store.kept(name)]
    versions = PageTable(
        "versions", "Versions that are served", ("fingerprint", "is", "online", "requests logged", "to retire it"),
        [] if asked.is_static else list(_versions(store, name, applied, kept)), "None is online, and no request was logged: featurestore materialize",
    )  # fmt: skip
    differences = PageTable(
        "differences", "Kept versions beside the applied one", ("field", "kept version", "there", "applied"),
        list(_differences(store, name, applied, kept)), "No other version is kept, or none differs.",
    )  # fmt: skip
    served = [] if asked.is_static else [versions]
    more = (
        []
        if asked.is_static
        else [
            PageLink("Look its features up", "lookup", "", {"service": name}),
            PageLink("Its training sets", "training", "", {"service": name}),
            PageLink("Audit", "audit", "", {"service": name}),
            PageLink("Drift", "drift", "", {"service": name}),
            PageLink("Statistics", "statistics", "", {"service": name}),
        ]
    )
    values = {
        "what": "Feature service",
        "facts": facts(found),
        **labels(found),
        "code": None,
        "lineage": name,
        "more": more,
    }
    return PageModel("definition.html", name, values, [*served, *tables(found), differences, history])


def _versions(store: ReadableStore, name: str, applied: str | None, kept: list[str]) -> Iterator[tuple[object, ...]]:
    for node in store.lineage(name, direction="downstream").of_kind("served version"):
        if not node.id.startswith(f"served:{name}@"):
            continue
        fingerprint = node.detail["fingerprint"]
        what = "applied" if fingerprint == applied else "kept" if fingerprint in kept else "earlier"
        online = PageState("online", "good") if node.detail.get("online") else PageState("not online")
        error = node.detail.get("error")
        ends = f"featurestore apply --retire {name}@{fingerprint[:SHOWN]}" if what == "kept" else ""
        yield fingerprint, what, PageState(str(error), "bad") if error else online, node.detail.get("requests", 0), ends


def _differences(store: ReadableStore, name: str, applied: str | None, kept: list[str]) -> Iterator[tuple[object, ...]]:
    now = _definition(store, name, applied)
    for fingerprint in kept:
        then = _definition(store, name, fingerprint)
        if now is not None and then is not None:
            for change in changes(then, now):
                yield change.field, fingerprint[:SHOWN], change.before or "", change.after or ""


def _definition(store: ReadableStore, name: str, fingerprint: str | None) -> Any:
    return None if fingerprint is None else store.service_definition(name, fingerprint)


PAGE = PageKind("service", "Service", service, is_named=True, is_listed=False, is_static=True)

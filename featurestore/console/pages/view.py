"""A view: its schema, how fresh it is, how it came to be what it is, and what it says word for word."""

from __future__ import annotations

import orjson

from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageTable, about, instant, moment
from featurestore.console.pages.described import described, facts, labels, tables
from featurestore.console.pages.history import SHOWN, history_of
from featurestore.console.pages.overview import state_of
from featurestore.console.readable_store import ReadableStore
from featurestore.declare.durations import show_duration
from featurestore.reports.status import ViewStatus

RUNS = 20
"""Runs of materialize that are listed."""


def view(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore show NAME`, `status` and `history` tell of it, and its last runs."""
    name = asked.name
    found = described(store, "feature view", name)
    history, _ = history_of(store, "views", name)
    declared = store.declared_code(name)
    code = None if declared is None else orjson.dumps(declared, option=orjson.OPT_INDENT_2).decode()
    values = {
        "what": "Feature view", "facts": facts(found), **labels(found), "code": code, "lineage": name,
        "more": [] if asked.is_static else _more(name),
    }  # fmt: skip
    return PageModel(
        "definition.html", name, values, [*_states(store, asked), *tables(found, name), history, *_runs(store, asked)]
    )


def _more(name: str) -> list[PageLink]:
    """What else there is to ask of it."""
    return [
        PageLink("Explain a value", "explain", "", {"view": name}), PageLink("Runs", "runs", "", {"view": name}),
        PageLink("Rows in quarantine", "quarantine", "", {"of": name}), PageLink("Availability", "availability", "", {"view": name}), PageLink("Statistics", "statistics", "", {"view": name}),
    ]  # fmt: skip


def _states(store: ReadableStore, asked: PageRequest) -> list[PageTable]:
    if asked.is_static:
        return []
    states = [one for one in store.status() if one.view == asked.name]
    header = ("fingerprint", "state", "served as of", "due as of", "last run", "newest row is", "it may be", "kept for")
    return [
        PageTable(
            "freshness",
            "How fresh it is",
            header,
            [_row(one) for one in states],
            "It is not applied yet: featurestore apply",
        )
    ]


def _runs(store: ReadableStore, asked: PageRequest) -> list[PageTable]:
    if asked.is_static:
        return []
    runs = [
        (instant(run.instant), moment(run.finished), about(run.finished - run.started), run.rows, run.keys, run.status)
        for run in store.runs(asked.name, limit=RUNS)
    ]
    header = ("for the instant", "ended", "took", "rows read", "keys written", "outcome")
    return [
        PageTable(
            "runs",
            "Its last runs of materialize",
            header,
            runs,
            f"No run has filled it yet: featurestore materialize {asked.name}",
        )
    ]


def _row(one: ViewStatus) -> tuple[object, ...]:
    age = "-" if one.age is None else f"{about(one.age)} old"
    allowed = "-" if one.freshness is None else f"{show_duration(one.freshness)} old"
    instants = map(moment, (one.served, one.wanted, one.last_run))
    return one.fingerprint[:SHOWN], state_of(one), *instants, age, allowed, ", ".join(one.kept_for) or "applied"


PAGE = PageKind("view", "View", view, is_named=True, is_listed=False, is_static=True)

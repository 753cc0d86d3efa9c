"""A view: its schema, how fresh it is, how it came to be what it is, and what it says word for word."""

from __future__ import annotations

import orjson

from featurestore.console.page import PageKind, PageModel, PageRequest, PageTable, about, instant, moment
from featurestore.console.pages.described import described, facts, labels, tables
from featurestore.console.pages.history import history_of
from featurestore.console.pages.overview import state_of
from featurestore.declare.durations import show_duration
from featurestore.reports.status import ViewStatus
from featurestore.store import FeatureStore

RUNS = 20
"""Runs of materialize that are listed."""


def view(store: FeatureStore, asked: PageRequest) -> PageModel:
    """What `featurestore show NAME`, `status` and `history` tell of it, and its last runs."""
    name = asked.name
    found = described(store, "feature view", name)
    states = [one for one in store.status() if one.view == name]
    header = ("fingerprint", "state", "served as of", "asked for", "last run", "newest row is", "it may be", "kept for")
    freshness = PageTable("freshness", "Freshness", header, [_row(one) for one in states], "It is not applied.")
    runs = [
        (instant(run.instant), moment(run.finished), about(run.finished - run.started), run.rows, run.keys, run.status)
        for run in store.registry.runs(name, limit=RUNS)
    ]
    ran = PageTable(
        "runs", "Last runs", ("for the instant", "ended", "took", "rows read", "keys written", "outcome"), runs,
        "No run of materialize has filled it.",
    )  # fmt: skip
    history, _ = history_of(store, "views", name)
    record = store.registry.current().document["views"].get(name)
    code = None if record is None else orjson.dumps(record["declared"], option=orjson.OPT_INDENT_2).decode()
    values = {
        "what": "Feature view", "facts": facts(found), **labels(found), "code": code, "lineage": name,
        "more": [],
    }  # fmt: skip
    return PageModel("definition.html", name, values, [freshness, *tables(found, name), history, ran])


def _row(one: ViewStatus) -> tuple[object, ...]:
    age = "-" if one.age is None else f"{about(one.age)} old"
    allowed = "-" if one.freshness is None else f"{show_duration(one.freshness)} old"
    instants = map(moment, (one.served, one.wanted, one.last_run))
    return one.fingerprint, state_of(one), *instants, age, allowed, ", ".join(one.kept_for) or "applied"


PAGE = PageKind("view", "View", view, is_named=True, is_listed=False)

"""What a request was served: every value beside the one that training says, with what makes it."""

from __future__ import annotations

from collections.abc import Iterator

from featurestore.console.explained import facts_of, rows_table, status_mark
from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageState, PageTable
from featurestore.console.readable_store import ReadableStore
from featurestore.console.time_line import time_line
from featurestore.errors import FeatureStoreError
from featurestore.report import shown_instant, typed_cell
from featurestore.reports.explain.request_explanation import RequestExplanation, ServedFunction, ServedView

ROWS, MOST_ROWS = 30, 1_000
"""Rows of the source that are shown of each view."""

TITLE = "Explain a request"


def request(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore explain --request` tells of one row of a logged request."""
    said = asked.word("id")
    form = {"id": said or "", "row": asked.word("row") or "0"}
    nothing: dict[str, object] = {"facts": [], "summary": None, "problem": "", "views": []}
    if said is None:
        return PageModel("request.html", TITLE, {**form, **nothing})
    try:
        row, limit = asked.number("row", 0, most=1_000_000), asked.number("limit", ROWS, most=MOST_ROWS)
        found = store.explain_request(said, row, limit=limit)
    except FeatureStoreError as error:
        if asked.query.get("format", "html") != "html":
            raise
        return PageModel("request.html", TITLE, {**form, **nothing, "problem": store.told(error)})
    rows = [
        rows_table(view.explanation, name=f"rows-{number}", of=view.name) for number, view in enumerate(found.views, 1)
    ]
    values = {
        **form, "facts": _facts(found), "summary": PageState(found.summary, "good" if found.agrees else "bad"), "problem": "",
        "views": [(view.name, _view_facts(view), view.explanation.summary, table.name) for view, table in zip(found.views, rows, strict=True)],
    }  # fmt: skip
    drawings = {
        "lines": {table.name: time_line(view.explanation) for view, table in zip(found.views, rows, strict=True)}
    }
    return PageModel("request.html", TITLE, values, (_values(found), _inputs(found), *rows), drawings=drawings)


def _facts(found: RequestExplanation) -> list[tuple[str, object]]:
    brought = [f"{name}={typed_cell(value, found.input_types[name])}" for name, value in found.inputs.items()]
    return [
        ("request", found.request),
        ("row", f"{found.row} of {found.rows:,} logged"),
        ("answered at", shown_instant(found.time)),
        ("service", PageLink(found.service, "service", found.service)),
        ("fingerprint", found.fingerprint),
        ("it brought", ", ".join(brought) or "nothing"),
    ]


def _view_facts(view: ServedView) -> list[tuple[str, object]]:
    late = [("it was late", PageState(f"{shown_instant(view.due)} was due", "warn"))] if view.is_stale else []
    early = [("it was early", PageState(f"{shown_instant(view.due)} was due", "bad"))] if view.as_of > view.due else []
    return [*facts_of(view.explanation), *late, *early]


def _values(found: RequestExplanation) -> PageTable:
    header = ("feature", "served", "status", "training says", "its status", "same bits")
    return PageTable("values", "What was served, and what training says", header, list(_value_rows(found)))


def _value_rows(found: RequestExplanation) -> Iterator[tuple[object, ...]]:
    for view in found.views:
        for one in view.features:
            served, now = (typed_cell(value, one.type) for value in (one.served, one.now))
            yield one.column, served, status_mark(one.status), now, status_mark(one.status_now), _same(one.agrees)
    for function in found.functions:
        served, now = (typed_cell(value, function.type) for value in (function.served, function.now))
        present = status_mark("PRESENT")
        said = (f"error: {function.error}", "-") if function.error else (now, present)
        link = PageLink(function.column, "function", function.column)
        yield link, served, present, *said, _same(function.agrees)


def _same(agrees: bool | None) -> PageState:
    if agrees is None:
        return PageState("not compared")
    return PageState("yes", "good") if agrees else PageState("no", "bad")


def _inputs(found: RequestExplanation) -> PageTable:
    rows = [row for function in found.functions for row in _input_rows(function)]
    return PageTable(
        "inputs", "What on-demand functions were given", ("function", "input", "value"), rows, "It has none."
    )


def _input_rows(function: ServedFunction) -> Iterator[tuple[object, ...]]:
    for name, value in function.inputs.items():
        yield (
            PageLink(function.column, "function", function.column),
            name,
            typed_cell(value, function.input_types[name]),
        )


PAGE = PageKind("request", TITLE, request, group="Ask")

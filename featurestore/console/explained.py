"""What pages show of an explanation: its values and its rows as tables, beside the line of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from featurestore.console.page import PageLink, PageState, PageTable
from featurestore.plurals import plural
from featurestore.report import ReportTable, shown_instant, typed_cell
from featurestore.reports.explain.explanation import Explanation

LEVELS = {"chosen": "good", "ended": "warn", "not yet known": "warn", "invalid": "bad", "quarantined": "bad"}
"""How verdicts are marked; those that are left out are plain."""

STATUS_LEVELS = {"PRESENT": "good", "MISSING": "plain", "EXPIRED": "warn"}

MOST_NAMES = 3
"""Folds that are named for which a row counts; more are counted. The line of time names all."""

At = Callable[[datetime], PageLink]
"""The link to the same question at another instant."""


def status_mark(status: str) -> PageState:
    """The status of a value."""
    return PageState(status, STATUS_LEVELS.get(status, "bad"))


def values_table(explanation: Explanation) -> PageTable:
    """The value of each feature, its status, and how many rows it is made of."""
    types = {feature.name: feature.type for feature in explanation.resolved.features}
    rows = [
        (
            PageLink(name, "feature", f"{explanation.view}:{name}"), typed_cell(value, types[name]),
            status_mark(explanation.statuses[name]), explanation.counted.get(name, "the newest"),
        )
        for name, value in explanation.values.items()
    ]  # fmt: skip
    return PageTable("values", "Values", ("feature", "value", "status", "of rows"), rows)


def rows_table(explanation: Explanation, *, name: str = "rows", of: str = "", at: At | None = None) -> PageTable:
    """Every row that is shown, with its verdict, as the explanation itself tells it; numbered as on the line of time. of: whose rows they are, where a page has several such tables."""
    hidden = f"; {explanation.hidden:,} more are not shown" if explanation.hidden else ""
    nothing = "No row ever bore this key." if not explanation.counts else "None is shown."
    told = [part for part in explanation.report().parts if isinstance(part, ReportTable) and part.header]
    if not told:
        return PageTable(name, f"Rows{f' of {of}' if of else ''}", ("row",), (), nothing)
    (table,) = told
    return PageTable(
        name,
        f"Rows{f' of {of}' if of else ''}, nearest to the answer first{hidden}",
        ("row", *table.header),
        list(_rows(explanation, table, at)),
        nothing,
    )


def _rows(explanation: Explanation, table: ReportTable, at: At | None) -> Iterator[tuple[object, ...]]:
    when = list(table.header).index("event_time")
    for number, (row, cells) in enumerate(zip(explanation.rows, table.rows, strict=True), 1):
        shown = list(cells)
        shown[0] = PageState(row.verdict, LEVELS.get(row.verdict, "plain"))
        if len(row.counts_for) > MOST_NAMES:
            shown[list(table.header).index("counts for")] = (
                f"{len(row.counts_for):,} of {len(explanation.counted):,} {plural(len(explanation.counted), 'fold')}"
            )
        if at is not None and row.event_time is not None:
            shown[when] = at(row.event_time)
        yield (number, *shown)


def facts_of(explanation: Explanation) -> list[tuple[str, object]]:
    """What was asked, and for which instant that is answered."""
    types = {key.name: key.type for key in explanation.resolved.keys}
    key = ", ".join(f"{name}={typed_cell(value, types[name])}" for name, value in explanation.key.items())
    return [
        ("view", PageLink(explanation.view, "view", explanation.view)),
        ("key", key or "none"),
        *([] if explanation.at is None else [("asked at", shown_instant(explanation.at))]),
        ("answered as of", shown_instant(explanation.as_of)),
        ("with what was known by", shown_instant(explanation.known_by)),
        ("status", status_mark(explanation.status)),
        *_aside(explanation),
    ]


def _aside(explanation: Explanation) -> Iterator[tuple[str, object]]:
    """Pushed rows of the key that count nowhere, since they are kept aside, with the page that shows them."""
    source = explanation.resolved.source.name
    for which, count in explanation.aside.items():
        rows = f"{count:,} {plural(count, 'row')} of this key, counted nowhere"
        if which == "late":
            yield "kept aside, too late", PageLink(rows, "pushes", "")
        else:
            yield "kept aside, in quarantine", PageLink(rows, "quarantine", "", {"of": source})

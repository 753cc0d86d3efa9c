"""Quarantine: what is expected of rows, how many do not meet it, and which rows these are and why."""

from __future__ import annotations

from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageState, PageTable
from featurestore.console.readable_store import ReadableStore
from featurestore.push.quarantine import QuarantinedRow
from featurestore.reports.quarantine import UnmetExpectation

SHOWN, MOST = 100, 10_000
"""Rows that a page shows where nobody says how many, and at most."""


def quarantine(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore quarantine list` tells, and `featurestore quarantine show NAME` of one view or push source."""
    name = asked.word("of")
    header = ("of", "what is expected", "otherwise", "rows that do not meet it")
    rows = [_expectation(one) for one in store.quarantine()]
    tables = [
        PageTable(
            "expectations",
            "What is expected",
            header,
            rows,
            "Nothing is expected of any row. A source says what is: expectations=[NotNull(…)]",
        )
    ]
    is_pushed = False
    if name is not None:
        found = store.quarantined_rows(name, most=max(1, asked.number("limit", SHOWN, most=MOST)))
        is_pushed = any(row.id is not None for row in found)
        columns = list(dict.fromkeys(column for row in found for column in row.values))
        shown = [_row(row, columns, is_pushed=is_pushed) for row in found]
        words = (*(("id in quarantine",) if is_pushed else ()), "where", *columns, "does not meet")
        tables.insert(
            0,
            PageTable(
                "rows",
                f"Rows of {name} that do not meet what is expected",
                words,
                shown,
                f"Every row of {name} meets what is expected of it.",
            ),
        )
    return PageModel("quarantine.html", "Quarantine", {"of": name, "is_pushed": is_pushed}, tables)


def _expectation(one: UnmetExpectation) -> tuple[object, ...]:
    count: object = PageState(str(one.rows), "plain" if one.otherwise == "warn" else "warn") if one.rows else 0
    return PageLink(one.of, "quarantine", "", {"of": one.of}), one.expectation, one.otherwise, count


def _row(row: QuarantinedRow, columns: list[str], *, is_pushed: bool) -> tuple[object, ...]:
    why: object = list(row.unmet) if row.unmet else PageState("meets all by now", "good")
    number = (str(row.id),) if is_pushed else ()
    return (*number, row.place, *(row.values.get(column) for column in columns), why)


PAGE = PageKind("quarantine", "Quarantine", quarantine, group="How it is")

"""Quarantine: what is expected of rows, how many do not meet it, and which rows these are and why."""

from __future__ import annotations

from collections.abc import Sequence

from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageState, PageTable
from featurestore.console.readable_store import ReadableStore
from featurestore.push.quarantine import QuarantinedRow
from featurestore.reports.quarantine import UnmetExpectation

SHOWN, MOST = 100, 10_000
"""Rows that a page shows where nobody says how many, and at most."""


def quarantine(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore quarantine list` tells, and `featurestore quarantine show NAME` of one view or push source, where `run` is
    asked for: files are read for it, of every view of which something is expected."""
    name, most = asked.word("of"), max(1, asked.number("limit", SHOWN, most=MOST))
    values = {"of": name, "is_pushed": False, "is_read": asked.is_run}
    if not asked.is_run:
        return PageModel("quarantine.html", "Quarantine", values)
    header = ("of", "what is expected", "otherwise", "rows that do not meet it")
    rows = [_expectation(one) for one in store.quarantine()]
    nothing = "Nothing is expected of any row. A source says what is: expectations=[NotNull(…)]"
    tables = [PageTable("expectations", "What is expected", header, rows, nothing)]
    if name is not None:
        found = store.quarantined_rows(name, most=most)
        values["is_pushed"] = any(row.id is not None for row in found)
        tables.insert(0, _rows(name, found))
    return PageModel("quarantine.html", "Quarantine", values, tables)


def _rows(name: str, found: Sequence[QuarantinedRow]) -> PageTable:
    is_pushed = any(row.id is not None for row in found)
    columns = list(dict.fromkeys(column for row in found for column in row.values))
    return PageTable(
        "rows",
        f"Rows of {name} that do not meet what is expected",
        (*(("id in quarantine",) if is_pushed else ()), "where", *columns, "does not meet"),
        [_row(row, columns, is_pushed=is_pushed) for row in found],
        f"Every row of {name} meets what is expected of it.",
    )


def _expectation(one: UnmetExpectation) -> tuple[object, ...]:
    count: object = PageState(f"{one.rows:,}", "plain" if one.otherwise == "warn" else "warn") if one.rows else 0
    return PageLink(one.of, "quarantine", "", {"of": one.of}), one.expectation, one.otherwise, count


def _row(row: QuarantinedRow, columns: list[str], *, is_pushed: bool) -> tuple[object, ...]:
    why: object = list(row.unmet) if row.unmet else PageState("meets all by now", "good")
    number = (str(row.id),) if is_pushed else ()
    return (*number, row.place, *(row.values.get(column) for column in columns), why)


PAGE = PageKind("quarantine", "Quarantine", quarantine, takes_long=True, group="How it is")

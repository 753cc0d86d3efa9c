"""What values were like: of training frames, of runs of materialize, and of what was served in each hour, as it was kept then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageTable
from featurestore.console.readable_store import ReadableStore
from featurestore.console.value_bars import value_bars
from featurestore.report import ReportTable, within
from featurestore.statistics.feature_statistics import KeptStatistics

LIMIT, MOST = 5, 50
MOST_DRAWINGS = 40
"""Features that are drawn on a page: of each frame, run or hour an equal part, and one at least."""


def statistics(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore statistics` tells, the newest first."""
    feature, view, service = (asked.word(word) for word in ("feature", "view", "service"))
    limit = asked.number("limit", LIMIT, most=MOST)
    found = store.statistics(feature, view=view, service=service, limit=limit)
    tables = [_table(number, kept, store.root) for number, kept in enumerate(found, 1)]
    most = max(1, MOST_DRAWINGS // max(1, len(found)))
    drawings = [[value_bars(one.feature, one.column) for one in kept.features[:most]] for kept in found]
    values = {
        "feature": feature or "", "view": view or "", "service": service or "", "views": sorted(store.applied("views")),
        "services": sorted(store.applied("services")),
        "kept": [(table.name, _links(kept), max(0, len(kept.features) - most)) for table, kept in zip(tables, found, strict=True)],
    }  # fmt: skip
    return PageModel(
        "statistics.html",
        "Statistics",
        values,
        tables,
        drawings={"drawn": {table.name: one for table, one in zip(tables, drawings, strict=True)}},
    )


def _table(number: int, kept: KeptStatistics, root: Path) -> PageTable:
    path = None if kept.training_set is None else within(kept.training_set, root)
    told = replace(kept, training_set=path).report()
    (table,) = [part for part in told.parts if isinstance(part, ReportTable)]
    return PageTable(f"kept-{number}", f"{number}. {told.title}", table.header, table.rows, "It has no features.")


def _links(kept: KeptStatistics) -> list[PageLink]:
    """What it is of."""
    of = PageLink(kept.subject, "view" if kept.kind == "run" else "service", kept.subject)
    return [of, *([PageLink("Drift", "drift", "", {"service": kept.subject})] if kept.kind != "run" else [])]


PAGE = PageKind("statistics", "Statistics", statistics, group="How it is")

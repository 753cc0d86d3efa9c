"""Why a value is what it is: of a key at an instant, the rows that make it on a line of time, and those that do not and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

from featurestore.console.asked import KEY, instant_asked, key_asked
from featurestore.console.explained import facts_of, rows_table, values_table
from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest
from featurestore.console.readable_store import ReadableStore
from featurestore.console.time_line import time_line, windows
from featurestore.declare.durations import rough_duration
from featurestore.errors import FeatureStoreError
from featurestore.report import shown_instant
from featurestore.reports.explain.explanation import Explanation

MOST_ROWS = 1_000
MOST_BACK_US = 10**16
"""Some 300 years: how far back a drawing may be asked to go."""


def explain(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore explain` tells of a view, or of some features of it, for one key, where `run` is asked for; before that, the form
    with what was asked."""
    said = asked.word("view")
    entity = None if said is None else store.catalog.view(said.partition(":")[0]).entity
    form = {
        "views": sorted(store.catalog.views), "view": said or "", "at": asked.word("at") or "",
        "keys": [] if entity is None else [(name, str(of), KEY + name, asked.query.get(KEY + name, "")) for name, of in entity.key.items()],
        "is_asked": False, "problem": "",
    }  # fmt: skip
    title = "Explain a value"
    try:
        key = None if entity is None else key_asked(asked, entity.key)
        if said is None or key is None:
            return PageModel("explain.html", title, form)
        at, limit = instant_asked(asked, "at"), asked.number("limit", 100, most=MOST_ROWS)
        back = asked.number("back", 0, most=MOST_BACK_US) or None
        if not asked.is_run:
            return PageModel("explain.html", title, {**form, "is_asked": True})
        found = store.explain(said, key, at=at, limit=limit)
    except FeatureStoreError as error:
        if asked.query.get("format", "html") != "html":
            raise
        return PageModel("explain.html", title, {**form, "problem": store.told(error)})
    link = partial(_link, asked)
    values = {
        **form,
        "facts": facts_of(found),
        "summary": found.summary,
        "around": _around(found, link),
        "zooms": _zooms(found, asked),
    }
    tables = (values_table(found), rows_table(found, at=lambda moment: link(moment, shown_instant(moment))))
    return PageModel(
        "explain.html",
        title,
        values,
        tables,
        drawings={"line": time_line(found, back=back)},
    )


def _link(asked: PageRequest, at: datetime, text: str) -> PageLink:
    """The same question at another instant."""
    return PageLink(text, "explain", "", asked.question(at=at.isoformat().replace("+00:00", "Z")))


def _around(found: Explanation, link: partial[PageLink]) -> list[PageLink]:
    """The instants before and after at which a refreshed view has other values."""
    refresh = found.resolved.timing.refresh
    if refresh is None or found.at is None:
        return []
    step = timedelta(microseconds=refresh)
    try:
        return [link(found.at - step, "one refresh earlier"), link(found.at + step, "one refresh later")]
    except OverflowError:  # the calendar ends there
        return []


def _zooms(found: Explanation, asked: PageRequest) -> list[PageLink]:
    """The same with other stretches of time drawn: those of its windows."""
    every = windows(found)
    shown = [
        PageLink(f"draw {rough_duration(back)}", "explain", "", asked.question(back=str(back)))
        for back in every
        if back <= MOST_BACK_US
    ]
    return shown if len(every) > 1 else []


PAGE = PageKind("explain", "Explain a value", explain, group="Ask")

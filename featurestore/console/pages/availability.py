"""How late rows really became known and servable, beside what the definitions promise."""

from __future__ import annotations

from featurestore.console.asked import since_asked
from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageState, PageTable
from featurestore.console.promises import Promise, promises_of
from featurestore.console.readable_store import ReadableStore
from featurestore.reports.availability.report import HOW, shown

SINCE = "7d"
LEVELS = {"broken": "bad", "needlessly long": "warn", "kept": "good", "not measured": "plain", "no promise": "plain"}


def availability(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore availability` tells."""
    form = {
        "since": asked.word("since") or SINCE, "view": asked.word("view") or "",
        "views": sorted(store.applied("views")),
    }  # fmt: skip
    if not asked.is_run:
        return PageModel("availability.html", "Availability", {**form, "is_measured": False})
    view = asked.word("view")
    found = store.availability(view, since=since_asked(asked, SINCE))
    promises = {name: promises_of(one) for name, one in found.views.items()}
    every = [promise for of in promises.values() for promise in of]
    advice = [
        (PageLink(name, "view", name), one.word, PageState("broken" if one.broken else "needlessly long", "bad" if one.broken else "warn"), one.text)
        for name, measured in found.views.items() for one in measured.advice
    ]  # fmt: skip
    tables = (
        PageTable("advice", "What does not hold, and what would", ("view", "word", "how it is", "advice"), advice,
                  "Every promise holds, as far as it was measured."),
        PageTable("promises", "Declared and measured", ("view", "word", "how it is", "declared", "p50", "p95", "p99", "longest", "beyond it"),
                  [_row(one) for one in every], "Nothing is applied yet: featurestore apply"),
        PageTable("rows", "What was measured", ("view", "source", "rows", "known as", "not known when", "later versions", "not servable yet", "not there in time"),
                  [(PageLink(name, "view", name), PageLink(one.source, "source", one.source), one.known.rows, HOW[one.how], one.untold, one.versions, one.waiting, one.absent)
                   for name, one in found.views.items()], "Nothing is applied yet: featurestore apply"),
    )  # fmt: skip
    return PageModel(
        "availability.html",
        "Availability",
        {**form, "is_measured": True},
        tables,
        drawings={"promises": promises, "levels": LEVELS},
    )


def _row(one: Promise) -> tuple[object, ...]:
    measured = (one.measured.p50, one.measured.p95, one.measured.p99, one.measured.greatest)
    state = PageState(one.state, LEVELS[one.state])
    return (
        PageLink(one.view, "view", one.view),
        one.word,
        state,
        shown(one.declared),
        *map(shown, measured),
        one.beyond or "-",
    )


PAGE = PageKind("availability", "Availability", availability, takes_long=True, group="How it is")

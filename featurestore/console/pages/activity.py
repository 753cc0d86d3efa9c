"""The trail of activity, for administrators: who did what, and when."""

from __future__ import annotations

from typing import Any

from featurestore.console.asked import since_asked
from featurestore.console.page import PageKind, PageModel, PageRequest, PageTable, moment
from featurestore.console.readable_store import ReadableStore
from featurestore.registry.activity import ACTIONS

SHOWN, MOST = 200, 10_000
"""Rows that a page shows where nobody says how many, and at most."""


def activity(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore activity` tells."""
    what, since = asked.word("what"), asked.word("since")
    limit = asked.number("limit", SHOWN, most=MOST)
    found = store.activity(since=None if since is None else since_asked(asked, since), what=what, limit=max(1, limit))
    rows = [(moment(one.at), one.who, one.what, one.subject, _shown(one.detail)) for one in found]
    table = PageTable(
        "activity",
        "Activity",
        ("at", "who", "what", "subject", "details"),
        rows,
        "Nothing was done, as far as was asked.",
    )
    values = {"what": what or "", "since": since or "", "actions": ACTIONS}
    return PageModel("activity.html", "Activity", values, (table,))


def _shown(detail: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in detail.items() if value not in (None, "", [], {}))


PAGE = PageKind("activity", "Activity", activity, scope="admin", group="For administrators")

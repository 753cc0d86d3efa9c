"""API keys, for administrators: who has one, what it opens, and whether it is used; no secret, and no part of one."""

from __future__ import annotations

from featurestore.access.api_keys import PREFIX
from featurestore.clock import wall_clock
from featurestore.console.page import PageKind, PageModel, PageRequest, PageState, PageTable, moment
from featurestore.console.readable_store import ReadableStore
from featurestore.registry.keys import ApiKey

LEVELS = {"live": "good", "expired": "plain", "revoked": "plain"}


def keys(store: ReadableStore, _: PageRequest) -> PageModel:
    """What `featurestore keys list` tells."""
    now = wall_clock()
    header = ("id", "name", "scopes", "only on", "state", "made at", "expires at", "last used")
    rows = [_row(key, now) for key in store.api_keys()]
    table = PageTable("keys", "API keys", header, rows, "There is none: featurestore keys create NAME --scope read")
    return PageModel("table.html", "API keys", {"about": "When each was last used is true to ten minutes."}, (table,))


def _row(key: ApiKey, now: int) -> tuple[object, ...]:
    state = key.state(now)
    only = "everything" if key.only_on is None else list(key.only_on)
    times = map(moment, (key.created_at, key.expires_at, key.used_at))
    return PREFIX + key.id, key.name, list(key.scopes), only, PageState(state, LEVELS[state]), *times


PAGE = PageKind("keys", "API keys", keys, scope="admin", group="For administrators")

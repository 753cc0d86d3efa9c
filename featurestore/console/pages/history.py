"""How a definition came to be what it is: each applied version of it, with what had changed. Pages of definitions show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurestore.console.page import PageTable, moment
from featurestore.console.readable import LEFT_OUT
from featurestore.console.readable_store import ReadableStore
from featurestore.registry.diff import changes

SHOWN = 12
"""Digits of a fingerprint that are enough to tell two apart."""


def history_of(store: ReadableStore, part: str, name: str) -> tuple[PageTable, str | None]:
    """The versions in which a definition's fingerprint changed, the newest first, and its definition as it is applied, as JSON
    text's value; None where it is not. part: "views", "services", …"""
    rows: list[tuple[object, ...]] = []
    before: Mapping[str, Any] | None = None
    for version in store.history(part, name):
        record = version.record
        if (record or {}).get("fingerprint") == (before or {}).get("fingerprint"):
            continue
        if record is None:
            what = "removed"
        elif before is None:
            what = "added"
        elif store.is_limited:
            what = LEFT_OUT
        else:
            what = "\n".join(map(str, changes(before["definition"], record["definition"])))
        fingerprint = "-" if record is None else record["fingerprint"][:SHOWN]
        rows.append((version.number, moment(version.applied_at), fingerprint, what, version.note))
        before = record
    table = PageTable(
        "history", "Versions that were applied", ("version", "applied at", "fingerprint", "what changed", "note"), rows[::-1],
        "It was never applied: featurestore apply",
    )  # fmt: skip
    return table, None if before is None else str(before["fingerprint"])

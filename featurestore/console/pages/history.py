"""How a definition came to be what it is: each applied version of it, with what had changed. Pages of definitions show it."""

from __future__ import annotations

from featurestore.console.page import PageTable, moment
from featurestore.registry.diff import changes
from featurestore.store import FeatureStore

SHOWN = 12
"""Digits of a fingerprint that are enough to tell two apart."""


def history_of(store: FeatureStore, part: str, name: str) -> tuple[PageTable, str | None]:
    """The versions in which a definition's fingerprint changed, the newest first, and its definition as it is applied, as JSON
    text's value; None where it is not. part: "views", "services", …"""
    rows: list[tuple[object, ...]] = []
    before: dict[str, object] | None = None
    for version in sorted(store.history(), key=lambda one: one.number):
        record = version.document[part].get(name)
        if (record or {}).get("fingerprint") == (before or {}).get("fingerprint"):
            continue
        if record is None:
            what = "removed"
        elif before is None:
            what = "added"
        else:
            what = "\n".join(map(str, changes(before["definition"], record["definition"])))
        fingerprint = "-" if record is None else record["fingerprint"][:SHOWN]
        rows.append((version.number, moment(version.applied_at), fingerprint, what, version.note))
        before = record
    table = PageTable(
        "history", "Versions", ("version", "applied at", "fingerprint", "what changed", "note"), rows[::-1],
        "It was never applied.",
    )  # fmt: skip
    return table, None if before is None else str(before["fingerprint"])

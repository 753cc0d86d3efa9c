"""Words that go with a number: one row, two rows."""

from __future__ import annotations


def plural(count: float | None, one: str, several: str | None = None) -> str:
    """The word for so many: `one` for 1, else `several`, which is `one` with an s where nothing else is said."""
    if count == 1:
        return one
    return f"{one}s" if several is None else several

"""Where a row lies: two columns beside those of its source, the file's number and the row's within it.

The engine knows both under names of its own (`file_row_number`, `rowid`, …), which a column of the data hides, in any case
of its letters. So columns are read by position, under names that the engine has for nothing, and where a row lies is named
as no column of the data is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from featurestore.semantics.sql import quote

__all__ = ["Pointer", "folded", "numbered_columns", "placed", "pointer_beside"]


class Pointer(NamedTuple):
    """The names, as SQL writes them, of the two columns that say where a row lies."""

    file: str
    row: str


def folded(name: str) -> str:
    """A name as the engine compares it with others: it tells no case of ASCII letters apart."""
    return "".join(chr(ord(sign) | 0x20) if "A" <= sign <= "Z" else sign for sign in name)


def pointer_beside(names: Iterable[str]) -> Pointer:
    """A pointer that has the name of none of these columns."""
    taken = {folded(name) for name in names}
    return Pointer(*(quote(_free(name, taken)) for name in ("__file", "__row")))


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def numbered_columns(relation: str, count: int) -> str:
    """A relation whose columns, so many, are named `c0, c1, …`, so that they hide nothing that the engine adds."""
    return f"{relation} p({', '.join(f'c{place}' for place in range(count))})" if count else f"{relation} p"


def placed(relation: str, count: int, read: Mapping[str, str], pointer: Pointer, *, file: str, row: str) -> str:
    """A SELECT of the rows of a relation of so many columns, with the pointer that `file` and `row` are, in the engine's own
    names. read: the columns that it gives, by name, as SQL over `c0, c1, …`."""
    given = "".join(f"{sql} AS {quote(name)}, " for name, sql in read.items())
    return f"SELECT {given}{file} AS {pointer.file}, {row} AS {pointer.row} FROM {numbered_columns(relation, count)}"

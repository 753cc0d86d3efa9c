"""Whose an SQLite file is, which version of the product wrote it, and whether it still is what was written."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path

from featurestore.errors import RegistryError

LARGE = 1 << 20
"""Bytes up to which a file's tables and indexes are looked through whenever it has changed, which takes up to 6 ms; larger ones once a
process."""

_Identity = tuple[int, int, int]
_LOOKED_AT: dict[str, _Identity] = {}

__all__ = ["is_set_up", "row_check", "tables_of"]


def is_set_up(connection: sqlite3.Connection, path: Path, *, application: int, schema: int, what: str) -> bool:
    """Whether the tables are there; to be asked within a transaction, since another process may be making them.

    application, schema: the marks that this version gives the file. RegistryError where it is no `what`, or a newer one.
    """
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return False
    if found != application:
        raise RegistryError(f"{path} is an SQLite file of something else, no {what}")
    if version < 1:
        raise RegistryError(f"{path} is damaged: it says that no version wrote it; restore it from a copy")
    if version > schema:
        raise RegistryError(
            f"{path} was written by a newer version of featurestore (schema {version}; this one reads {schema}); "
            "upgrade it here"
        )
    _look_through(connection, path, what)
    return True


def _look_through(connection: sqlite3.Connection, path: Path, what: str) -> None:
    """RegistryError where tables and indexes contradict each other, or lie in another order than they must."""
    there = path.stat()
    changing = there.st_size <= LARGE
    identity = there.st_ino, there.st_size if changing else 0, there.st_mtime_ns if changing else 0
    if _LOOKED_AT.get(str(path)) == identity:
        return
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise RegistryError(f"The {what} {path} is damaged: {' '.join(found.split())}; restore it from a copy")
    _LOOKED_AT[str(path)] = identity


def row_check(values: Iterable[object]) -> int:
    """A checksum of what rows say, which SQLite has none of."""
    return zlib.crc32(repr(tuple(values)).encode("utf-8", "surrogatepass"))


def tables_of(connection: sqlite3.Connection) -> set[str]:
    """The names of the tables that are there."""
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

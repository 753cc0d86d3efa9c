"""Whose an SQLite file is, and which version of the product wrote it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from featurestore.errors import RegistryError

__all__ = ["is_set_up"]


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
    if version > schema:
        raise RegistryError(
            f"{path} was written by a newer version of featurestore (schema {version}; this one reads {schema}); "
            "upgrade it here"
        )
    return True

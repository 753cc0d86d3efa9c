"""The places that a registry may have, past the product."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg


def by_hand(place: Path | str, *statements: str) -> list[Any]:
    """Run statements, in the words that the place understands; the rows of the last one."""
    if isinstance(place, Path):
        with closing(sqlite3.connect(place, isolation_level=None)) as connection:
            return [connection.execute(statement).fetchall() for statement in statements][-1]
    with psycopg.connect(place, autocommit=True, options="-csearch_path=featurestore") as connection:
        cursors = [connection.execute(statement) for statement in statements]
        return [] if cursors[-1].description is None else cursors[-1].fetchall()


def words(place: Path | str, sqlite: str, postgresql: str) -> str:
    """The words for a place."""
    return sqlite if isinstance(place, Path) else postgresql


REFUSED = (sqlite3.IntegrityError, psycopg.IntegrityError)

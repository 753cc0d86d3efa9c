"""Registries as earlier versions of the program wrote them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from featurestore.registry.store import SCHEMA

UNDONE = {
    7: ("DROP TABLE forgotten", "DROP TABLE forget_secret"),
    6: ("DROP TABLE activity",),
    5: ("DROP TABLE api_keys",),
    4: (),
    3: tuple(f"ALTER TABLE {table} DROP COLUMN of_row" for table in ("versions", "runs")),
    2: ("DROP TABLE kept",),
}
"""By schema, what takes its own step back."""


def make_older(path: Path | str, schema: int) -> None:
    """Make a registry what a program of that schema wrote."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for step in range(SCHEMA, schema, -1):
            for sql in UNDONE[step]:
                connection.execute(sql)
        connection.execute(f"PRAGMA user_version = {schema}")

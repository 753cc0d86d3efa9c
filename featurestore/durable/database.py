"""What a place for tables must be able to do, whichever it is: an SQLite file, or PostgreSQL.

SQL is written once, in what both understand, with `?` for a value. Tables are written as SQLite has them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from featurestore.errors import RegistryError


class Selected(Protocol):
    """What a statement gave."""

    def fetchone(self) -> Any:
        """The next row; None after the last."""

    def fetchall(self) -> list[Any]:
        """The rest."""

    def __iter__(self) -> Iterator[Any]:
        """The rest, one by one."""

    @property
    def description(self) -> Any:
        """The columns, each with its name first."""


class Transaction(Protocol):
    """A transaction that is under way."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Selected:
        """Run one statement."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Run one statement for each row of values."""

    def schema(self) -> int:
        """The version of the tables that are there."""

    def tables(self) -> set[str]:
        """The names of the tables that are there."""

    def last_number(self, table: str) -> int:
        """The last number that a row of a table was given, be the row gone or not; 0 before the first."""


class Database(Protocol):
    """A place for the tables of one program. Everything wrong is a RegistryError that names the place."""

    @property
    def name(self) -> str:
        """What messages call it: a path, or a URL without its password."""

    def reading(self) -> AbstractContextManager[Transaction | None]:
        """A transaction that sees one state of everything; None where nothing was ever written. Creates nothing."""

    def writing(self) -> AbstractContextManager[tuple[Transaction, bool]]:
        """One transaction that excludes every other writer from its beginning, and whether there are tables; where an
        error comes before its end, nothing of it is kept. Code that makes tables calls `mark`."""

    def mark(self, connection: Any) -> None:
        """Say that the tables are this version's."""

    def close(self) -> None:
        """Let go of what is held between two transactions; it may be used afterwards."""


def opened(
    place: Path | str, what: str, *, application: int, schema: int, timeout: float, ahead: bool = False,
    project: str | None = None,
) -> Database:  # fmt: skip
    """The database at a place: a path of an SQLite file, or a postgresql:// URL. what: its noun in messages. application,
    schema: the marks that this version gives its tables. timeout: how long (s) other writers are waited for."""
    if isinstance(place, Path):
        from featurestore.durable.sqlite_file import SQLiteFile

        return SQLiteFile(place, what, application, schema, timeout, ahead, project)
    from featurestore.durable.postgresql import PostgreSQL

    return PostgreSQL(place, what, project=project, schema=schema, timeout=timeout)


def copy_rows(source: Transaction, target: Transaction, table: str) -> None:
    """Put the rows of a table into another database's, in the order of the first column."""
    rows = source.execute(f"SELECT * FROM {table} ORDER BY 1")
    names = [column[0] for column in rows.description]
    marks = ", ".join("?" * len(names))
    target.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)


def is_not_writable(error: RegistryError) -> bool:
    """Whether the place itself, and nothing in it, keeps somebody from writing: the disk, the network, rights or other writers."""
    words = {"OperationalError", "ReadOnlySqlTransaction", "InsufficientPrivilege"}
    return isinstance(error.__cause__, OSError) or any(kind.__name__ in words for kind in type(error.__cause__).__mro__)


def row_check(values: Iterable[object]) -> int:
    """A checksum of what rows say, which databases have none of."""
    return zlib.crc32(repr(tuple(values)).encode("utf-8", "surrogatepass"))

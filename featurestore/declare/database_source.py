"""A table or query of a database as a source: its rows are copied as they come, in the order of a column that only grows."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self, Unpack

from pydantic import model_validator

from featurestore.declare.declaration import StoredName, declares
from featurestore.declare.durations import Duration
from featurestore.declare.sources import FileSource, SourceOptions


class DatabaseSource(FileSource):
    """Rows of a database: `DatabaseSource("orders", "shop", table="orders", cursor="id", event_time="at")`.

    `shop` is a name of `[databases]` in featurestore.toml, which says its URL. Rows are copied once, as they come: those whose
    `cursor` is greater than that of every row before. So a row is never changed in its place: a correction, or a deletion, is a
    new row with the same `identity`. It takes the extra `databases`.
    """

    IN_FILES: ClassVar[bool] = False  # when a row was copied is not when it was learned
    FORMAT: ClassVar[str] = "database"
    SUFFIXES: ClassVar[tuple[str, ...]] = ()

    kind: Literal["database"] = "database"
    """Which of the sources it is."""
    path: tuple[str, ...] = ()
    """Empty: it lies in no files of yours."""
    database: str
    """The name that `[databases]` of featurestore.toml has for it."""
    table: str | None = None
    """The table or view in it, with its schema: "sales.orders". None: a query is given."""
    query: str | None = None
    """A SELECT in the database's own SQL. None: a table is given."""
    cursor: StoredName
    """The column, of whole numbers, times or text, of which later rows have greater values, in the order in which they are
    committed; it is never null."""
    overlap: Duration = 0
    """Of a cursor of times, for how long rows may be committed after others with a greater one (µs): so much is asked for again."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if not self.table and not self.query:
            raise ValueError("table or query must be said: which rows of the database there are")
        if self.table and self.query:
            raise ValueError("table and query are two ways to say which rows there are; say one")
        return self

    def may_lack(self, column: str) -> bool:  # noqa: ARG002
        """Earlier rows may be without any column: they were copied before the database had it."""
        return True

    @declares
    def __init__(
        self,
        name: str,
        database: str,
        *,
        cursor: str,
        table: str | None = None,
        query: str | None = None,
        overlap: Any = "0s",
        **options: Unpack[SourceOptions],
    ) -> None:
        if database == "":
            raise ValueError("database: must not be empty")
        if "://" in str(database):  # and is not shown: a password may be in it
            raise ValueError("database is a name, such as 'shop'; [databases] of featurestore.toml says its URL")
        self.fill(name=name, database=database, cursor=cursor, table=table, query=query, overlap=overlap, **options)

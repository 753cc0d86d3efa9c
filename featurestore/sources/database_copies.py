"""Rows of databases, copied to Parquet files as they come: each file has those whose cursor is beyond that of the files before.

The files are never changed, so that the query, incremental runs and tiles take them for files that land. An index says which
there are; it is replaced last, so that of a copy that was killed nothing counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from featurestore.declare.database_source import DatabaseSource
from featurestore.durable.disk import replace
from featurestore.durable.lock import BusyError, exclusive
from featurestore.durable.own_folder import own_folder
from featurestore.errors import SourceError
from featurestore.lazy import pa
from featurestore.sources.copies import write_parquet
from featurestore.sources.source_files import source_error

DRIVERS = {"sqlite": "adbc_driver_sqlite", "postgresql": "adbc_driver_postgresql", "postgres": "adbc_driver_postgresql"}
"""Scheme of a URL → the module of the ADBC driver that takes it."""

INDEX = "index.json"
WAIT_SECONDS = 600.0
"""How long another process may copy before one gives up waiting for it."""


def copied_files(source: DatabaseSource, folder: Path, databases: Mapping[str, str]) -> dict[str, str]:
    """The files of a source's rows, with those that came since the last call: by path the name. Raises SourceError."""
    url = databases.get(source.database)
    if url is None:
        raise source_error(
            source,
            f"[databases] of featurestore.toml has no '{source.database}'; say {source.database} = \"postgresql://…\" there",
        )
    within = folder / _digest([*_place(url), source.table, source.query, source.cursor])
    own_folder(within)
    try:
        with exclusive(within / "lock", doing=f"copying {source.title}", wait_seconds=WAIT_SECONDS):
            index = _index(within)
            with _connected(source, url) as connection:
                _take_new(source, connection, within, index)
    except BusyError as error:
        raise source_error(source, f"its rows are being copied: {error}") from error
    return {str(within / name): name for name in index["files"]}


def _place(url: str) -> tuple[str, str, str]:
    """Which database a URL names, without who opens it."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2], parts.path


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=12).hexdigest()


def _index(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / INDEX).read_text())
    except FileNotFoundError:
        return {"files": [], "upto": None}
    return found


def _take_new(source: DatabaseSource, connection: Any, folder: Path, index: dict[str, Any]) -> None:
    """Copy the rows beyond the index's cursor, and say so in it."""
    rows = f"({source.query.strip().rstrip(';')})" if source.query else _quoted(source.table or "")
    cursor = f"r.{_quoted(source.cursor)}"  # SQLite takes a quoted name of no column, alone, for text
    after = "" if index["upto"] is None else f" WHERE {cursor} > {index['upto']}"
    newest = _asked(source, connection, f"SELECT max({cursor}) AS c FROM {rows} AS r{after}").column(0)[0].as_py()
    if newest is None:
        return
    upto = _literal(source, newest)
    within = f"{after} AND {cursor} <= {upto}" if after else f" WHERE {cursor} <= {upto}"
    name = f"{len(index['files']):06}.parquet"
    with connection.cursor() as asked:
        _run(source, asked, f"SELECT * FROM {rows} AS r{within}")
        reader = asked.fetch_record_batch()
        try:
            write_parquet(folder / name, reader.schema, iter(reader))
        except (pa.ArrowException, OSError) as error:
            raise source_error(source, f"its rows cannot be copied: {' '.join(str(error).split())}") from error
    index["files"].append(name)
    index["upto"] = upto
    replace(folder / INDEX, json.dumps(index).encode())


def _asked(source: DatabaseSource, connection: Any, sql: str) -> pa.Table:
    with connection.cursor() as asked:
        _run(source, asked, sql)
        table: pa.Table = asked.fetch_arrow_table()
        return table


def _run(source: DatabaseSource, asked: Any, sql: str) -> None:
    try:
        asked.execute(sql)
    except Exception as error:
        raise source_error(source, f"database '{source.database}' refuses it: {_words(error)}") from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split())


def _literal(source: DatabaseSource, value: Any) -> str:
    """A cursor's value as SQL."""
    if isinstance(value, bool) or not isinstance(value, (int, str, date, datetime)):
        raise source_error(
            source,
            f"its cursor '{source.cursor}' is {type(value).__name__}, and is to be a whole number, a time or text",
        )
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    text = value.isoformat(" ") if isinstance(value, datetime) else str(value)
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    """A name as SQL, its schema before it where it has one."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


@contextmanager
def _connected(source: DatabaseSource, url: str) -> Iterator[Any]:
    scheme = urlsplit(url).scheme
    if scheme not in DRIVERS:
        raise source_error(source, f"database '{source.database}' is {scheme}://…; {', '.join(DRIVERS)} are read")
    try:
        driver = import_module(f"{DRIVERS[scheme]}.dbapi")
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{source.title} takes the library {DRIVERS[scheme]}: pip install 'featurestore[databases]' ({source.origin})"
        ) from error
    place = url.removeprefix("sqlite://") if scheme == "sqlite" else url
    if scheme == "sqlite" and not Path(place).exists():
        raise source_error(source, f"there is no file {place}")
    try:
        connection = driver.connect(place)
    except Exception as error:
        raise source_error(source, f"database '{source.database}' cannot be opened: {_words(error)}") from error
    with connection:
        yield connection
